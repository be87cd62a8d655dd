/** The part of the page that shows one job: captions, text as it comes, or its transcript. */

const get = (id) => document.getElementById(id);
const ENDED = ["done", "failed", "cancelled"];

/** What can be copied and saved of a job: its transcript, or else what there is of it. */
function savable(job) {
  if (job?.result) return job.result;
  const text = job?.captions || job?.text;
  if (!text || !ENDED.includes(job.state)) return null;
  const parts = job.captions ? [] : job.parts;
  return { text, segments: parts.flatMap(({ segments }) => segments) };
}

function whatIsMissing(job) {
  if (job?.result) return "Nobody speaks in this recording.";
  if (job?.state === "recording") {
    return job.isLive ? "Captions appear here while somebody speaks."
      : "The text appears here when the recording has ended.";
  }
  return "The text of a recording appears here.";
}

/** Draws a job whenever it is asked to; only what has changed. */
export class TranscriptView {
  /** What can be copied and saved now; null if nothing can. */
  transcript = null;
  #player;
  #captions;
  #codeOf;
  #drawn = null;

  /**
   * @param player a Player.
   * @param captions a Captions.
   * @param codeOf gives the code of a language for its name.
   */
  constructor(player, captions, codeOf) {
    this.#player = player;
    this.#captions = captions;
    this.#codeOf = codeOf;
  }

  /** Draws a job, or none. */
  draw(job) {
    const text = job?.captions || job?.text || "";
    const isLive = job?.state === "recording";
    get("title").textContent = job?.name ?? "Transcript";
    get("captions-log").hidden = !isLive;
    get("stop").hidden = !isLive;
    this.#captions.draw(isLive ? job.items : []);
    get("empty").textContent = whatIsMissing(job);
    get("empty").hidden = Boolean(text || job?.items.length);
    const state = [job?.id, job?.url, job?.state, job?.parts.length, text.length].join(" ");
    if (state === this.#drawn) return;
    this.#drawn = state;
    this.#drawAudio(job);
    this.#drawText(job, text);
    this.#drawActions(job);
  }

  #drawAudio(job) {
    const audio = get("player");
    audio.hidden = !job?.url;
    if (job?.url && audio.src !== job.url) audio.src = job.url;
    if (!job?.url) audio.removeAttribute("src");
  }

  #drawText(job, text) {
    const box = get("text");
    if (job?.result?.segments || (job?.parts.length && !job.captions)) this.#player.show(job.parts);
    else this.#player.draft(text);
    const isEnglish = job?.options.task === "translate";
    const lang = isEnglish ? "en" : this.#codeOf(job?.result?.language) || job?.options.language;
    box.lang = lang ?? "";
    box.hidden = !text;
    const warnings = job?.result?.warnings ?? [];
    get("warnings").textContent = warnings.join("\n");
    get("warnings").hidden = !warnings.length;
    get("hint").hidden = !job?.parts.some(({ words }) => words?.length);
  }

  #drawActions(job) {
    this.transcript = savable(job);
    get("actions").hidden = !this.transcript;
    for (const button of document.querySelectorAll("[data-format]")) {
      const { format } = button.dataset;
      button.hidden = format !== "txt"
        && !(format === "json" ? job?.result : this.transcript?.segments?.length);
    }
  }
}
