/** The button that begins and ends a recording, and what is shown meanwhile. */

import { clock } from "./formats.js";
import { Recording } from "./recording.js";

const UNPLUGGED = "The microphone is gone. What it recorded until now is being transcribed.";
const get = (id) => document.getElementById(id);

/** Records into a job of the queue: at first its captions, then its file. */
export class RecordButton {
  #queue;
  #choices;
  #page;
  #recording = null;
  #job = null;
  #count = 0;
  #isBusy = false;

  /**
   * @param queue a Queue.
   * @param choices a Choices.
   * @param page functions of the page: problem(message), show(job).
   */
  constructor(queue, choices, page) {
    this.#queue = queue;
    this.#choices = choices;
    this.#page = page;
    for (const id of ["record", "stop"]) {
      get(id).addEventListener("click", () => this.#toggle());
    }
  }

  /** Whether a recording is being made. */
  get isRecording() {
    return this.#recording !== null;
  }

  async #toggle() {
    // the browser may be asking for the microphone
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#page.problem("");
    try {
      if (this.#recording) await this.#stop();
      else await this.#start();
    } catch (error) {
      this.#page.problem(error.message);
    }
    this.#isBusy = false;
  }

  async #start() {
    const recording = await Recording.start();
    const options = this.#choices.now;
    const captions = get("captions");
    const live = captions.checked && !captions.disabled && this.#choices.settings.realtime;
    this.#recording = recording;
    this.#job = this.#queue.record(`recording-${(this.#count += 1)}`, options, live);
    const { show, problem } = this.#page;
    recording.addEventListener("change", () => this.#queue.caption(this.#job, recording.items));
    recording.addEventListener("problem", ({ detail }) => problem(detail.message));
    recording.addEventListener("unplugged", async () => {
      if (this.#recording !== recording) return;
      await this.#stop();
      problem(UNPLUGGED);
    });
    show(this.#job);
    this.#draw();
    if (!live) return;
    // on a narrow screen the captions are below what can be seen
    const captionsAt = get("transcript");
    if (captionsAt.getBoundingClientRect().top > innerHeight * 0.7) captionsAt.scrollIntoView();
    // not awaited: a recording can be stopped while the browser still prepares its captions
    recording.addCaptions(options);
  }

  async #stop() {
    const [recording, job] = [this.#recording, this.#job];
    this.#recording = null;
    this.#draw();
    this.#queue.finish(job, await recording.stop(job.name), recording.text);
  }

  #draw() {
    const button = get("record");
    const time = get("record-time");
    const recording = this.#recording;
    button.classList.toggle("on", recording !== null);
    button.textContent = recording ? "Stop recording" : "Record";
    time.hidden = !recording;
    const tick = () => {
      if (this.#recording !== recording || !recording) return;
      time.textContent = `Recording, ${clock((Date.now() - recording.begun) / 1000)}`;
      setTimeout(tick, 500);
    };
    tick();
  }
}
