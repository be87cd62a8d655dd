/** The files of this visit: one is sent at a time, and each keeps its state. */

import { ApiFailure, transcribe } from "./api.js";
import { size } from "./formats.js";

/** Sends files to the server in the order in which they came; `change` says that a job changed. */
export class Queue extends EventTarget {
  jobs = [];
  /** Bytes of the largest file that the server takes. */
  maxUpload = Infinity;
  #running = false;
  #count = 0;

  /** Adds a file with its options (model, language, task), and returns its job. */
  add(file, options) {
    const job = this.#make(file.name, options, "recording");
    this.finish(job, file);
    return job;
  }

  /**
   * Adds a job without a file, and returns it: a recording that is being made.
   *
   * @param isLive whether it has captions.
   */
  record(name, options, isLive) {
    const job = this.#make(name, options, "recording");
    this.#set(job, { isLive });
    return job;
  }

  /** Takes the captions of a recording that is being made. */
  caption(job, items) {
    this.#set(job, { items });
  }

  /** Puts a recording into the queue, with the text that its captions had. */
  finish(job, file, captions = "") {
    const url = URL.createObjectURL(file);
    this.#set(job, { file, url, captions, items: [], name: file.name, state: "waiting" });
    this.#run();
  }

  #make(name, options, state) {
    const job = {
      id: (this.#count += 1),
      name,
      file: null,
      url: null,
      options,
      state,
      uploaded: 0,
      items: [],
      captions: "",
      text: "",
      parts: [],
      result: null,
      error: null,
    };
    this.jobs.push(job);
    return job;
  }

  /** Ends a job that waits or is being worked on. */
  cancel(job) {
    if (job.abort) job.abort.abort();
    else if (job.state === "waiting") this.#set(job, { state: "cancelled" });
  }

  /** Puts a job that failed or was cancelled at the end of the queue. */
  retry(job) {
    this.jobs = [...this.jobs.filter((other) => other !== job), job];
    this.#set(job, { state: "waiting", uploaded: 0, text: "", parts: [], error: null });
    this.#run();
  }

  /** Forgets a job and its file. */
  remove(job) {
    this.cancel(job);
    this.jobs = this.jobs.filter((other) => other !== job);
    if (job.url) URL.revokeObjectURL(job.url);
    this.#changed(job);
  }

  #set(job, values) {
    Object.assign(job, values);
    this.#changed(job);
  }

  #changed(job) {
    this.dispatchEvent(new CustomEvent("change", { detail: job }));
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    for (let job; (job = this.jobs.find((other) => other.state === "waiting")); ) {
      await this.#transcribe(job);
    }
    this.#running = false;
  }

  async #transcribe(job) {
    job.abort = new AbortController();
    this.#set(job, { state: "uploading" });
    try {
      if (job.file.size > this.maxUpload) {
        throw new ApiFailure(`The file has ${size(job.file.size)}, but this server takes at most `
          + `${size(this.maxUpload)} (its option --max-upload).`, 413);
      }
      const result = await transcribe(job.file, job.options, {
        signal: job.abort.signal,
        onUpload: (uploaded) =>
          this.#set(job, { uploaded, state: uploaded < 1 ? "uploading" : "transcribing" }),
        onText: (text) => this.#set(job, { text, state: "transcribing" }),
        onPart: (part) => this.#set(job, { parts: job.parts.concat(part) }),
      });
      const isWhole = job.parts.flatMap(({ segments }) => segments).length
        === result.segments?.length;
      const parts = isWhole ? job.parts : [result];
      this.#set(job, { state: "done", result, parts, text: result.text });
    } catch (error) {
      const cancelled = job.abort.signal.aborted;
      this.#set(job, cancelled ? { state: "cancelled" } : { state: "failed", error });
    } finally {
      job.abort = null;
    }
  }
}
