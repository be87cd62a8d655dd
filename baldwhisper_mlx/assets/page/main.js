/** Connects the parts of the page. */

import { getJson, useKey } from "./api.js";
import { MEDIA_TYPES, clock, download, write } from "./formats.js";
import { JobList, describe } from "./jobs.js";
import { Player } from "./player.js";
import { Queue } from "./queue.js";
import { Recorder } from "./recorder.js";

const get = (id) => document.getElementById(id);
const queue = new Queue();
const player = new Player(get("player"), get("text"));
const recorder = new Recorder();
let shown = null;
let drawn = null;

const list = new JobList(get("queue"), {
  show,
  cancel: (job) => queue.cancel(job),
  retry: (job) => queue.retry(job),
  remove: (job) => {
    if (job === shown) shown = null;
    queue.remove(job);
    get("pick").focus();
  },
});

function problem(message) {
  get("problem").textContent = message;
  get("problem").hidden = !message;
}

function say(message) {
  get("status").textContent = message;
}

function add(files) {
  problem("");
  const options = {
    model: get("model").value,
    language: get("language").value,
    task: get("task").value,
  };
  const jobs = [...files].map((file) => queue.add(file, options));
  if (jobs.length && shown?.state !== "done") show(jobs[0]);
}

function show(job) {
  shown = job;
  draw();
}

/** Draws the transcript, if what is shown has changed. */
function drawTranscript() {
  const state = shown && `${shown.id} ${shown.text.length} ${shown.result !== null}`;
  get("title").textContent = shown?.file.name ?? "Transcript";
  if (state === drawn) return;
  const other = state?.split(" ")[0] !== drawn?.split(" ")[0];
  drawn = state;
  const audio = get("player");
  if (other && shown) audio.src = shown.url;
  if (!shown) audio.removeAttribute("src");
  if (shown?.result) player.show(shown.result);
  else player.draft(shown?.text ?? "");
  const silent = shown?.result && !shown.result.segments.length;
  get("empty").textContent = silent
    ? "Nobody speaks in this recording." : "The text of a recording appears here.";
  get("empty").hidden = Boolean(shown?.text);
  get("text").hidden = !shown?.text;
  audio.hidden = !shown;
  get("actions").hidden = !shown?.result;
  get("hint").hidden = !shown?.result?.words?.length;
}

function draw() {
  get("queue-title").hidden = !queue.jobs.length;
  list.draw(queue.jobs, shown);
  drawTranscript();
}

queue.addEventListener("change", ({ detail: job }) => {
  if (["done", "failed"].includes(job.state)) say(`${job.file.name}: ${describe(job)}`);
  if (job.state === "failed" && job.error.status === 401) get("key-form").hidden = false;
  draw();
});

async function toggleRecording() {
  problem("");
  const button = get("record");
  try {
    if (recorder.active) add([await recorder.stop()]);
    else await recorder.start();
  } catch (error) {
    problem(error.message);
  }
  button.setAttribute("aria-pressed", String(recorder.active));
  button.textContent = recorder.active ? "Stop recording" : "Record";
  const begun = Date.now();
  const time = get("record-time");
  time.hidden = !recorder.active;
  const tick = () => {
    if (button.getAttribute("aria-pressed") !== "true") return;
    time.textContent = `Recording, ${clock((Date.now() - begun) / 1000)}`;
    setTimeout(tick, 500);
  };
  tick();
}

async function fillOptions() {
  const option = (value, text) => new Option(text, value);
  try {
    const [models, languages] = await Promise.all([
      getJson("v1/models"), getJson("page/languages.json"),
    ]);
    get("model").replaceChildren(...models.data.map(({ id }) => option(id, id)));
    const names = Object.entries(languages).map(([code, name]) => option(code, name));
    get("language").replaceChildren(option("", "Detect"), ...names);
    get("key-form").hidden = true;
    problem("");
  } catch (error) {
    get("key-form").hidden = error.status !== 401;
    problem(error.message);
  }
}

function acceptDrops() {
  const zone = get("drop");
  const over = (event, inside) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.toggle("over", inside);
  };
  // the whole window takes files: one that misses the zone must not replace the page
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", (event) => {
    over(event, false);
    add(event.dataTransfer.files);
  });
}

get("pick").addEventListener("click", () => get("files").click());
get("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
get("record").addEventListener("click", toggleRecording);
get("task").addEventListener("change", () => {
  get("language").disabled = get("task").value === "translate";
});
get("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(get("key").value);
  fillOptions();
});
get("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(write("txt", shown.result).trimEnd());
    say("Copied.");
    get("copy").textContent = "Copied";
    setTimeout(() => (get("copy").textContent = "Copy"), 1500);
  } catch {
    problem("The browser did not allow copying. Select the text and copy it by hand.");
  }
});
for (const button of document.querySelectorAll("[data-format]")) {
  const format = button.dataset.format;
  button.addEventListener("click", () => {
    const stem = shown.file.name.replace(/\.[^.]+$/, "");
    download(`${stem}.${format}`, write(format, shown.result), MEDIA_TYPES[format]);
  });
}
addEventListener("beforeunload", (event) => {
  if (recorder.active) event.preventDefault();
});
acceptDrops();
fillOptions();
