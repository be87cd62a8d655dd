/** The files of this visit: one is sent at a time, and each keeps its state. */

import { transcribe } from "./api.js";

/** Sends files to the server in the order in which they came; `change` says that a job changed. */
export class Queue extends EventTarget {
  jobs = [];
  #running = false;
  #count = 0;

  /** Adds a file with its options (model, language, task), and returns its job. */
  add(file, options) {
    const job = {
      id: (this.#count += 1),
      file,
      options,
      state: "waiting",
      uploaded: 0,
      text: "",
      result: null,
      error: null,
      url: URL.createObjectURL(file),
    };
    this.jobs.push(job);
    this.#changed(job);
    this.#run();
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
    this.#set(job, { state: "waiting", uploaded: 0, text: "", error: null });
    this.#run();
  }

  /** Forgets a job and its file. */
  remove(job) {
    this.cancel(job);
    this.jobs = this.jobs.filter((other) => other !== job);
    URL.revokeObjectURL(job.url);
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
      const result = await transcribe(job.file, job.options, {
        signal: job.abort.signal,
        onUpload: (uploaded) =>
          this.#set(job, { uploaded, state: uploaded < 1 ? "uploading" : "transcribing" }),
        onText: (text) => this.#set(job, { text, state: "transcribing" }),
        onTimes: () => this.#set(job, { state: "timing" }),
      });
      this.#set(job, { state: "done", result, text: result.text });
    } catch (error) {
      const cancelled = job.abort.signal.aborted;
      this.#set(job, { state: cancelled ? "cancelled" : "failed", error: cancelled ? null : error });
    } finally {
      job.abort = null;
    }
  }
}
