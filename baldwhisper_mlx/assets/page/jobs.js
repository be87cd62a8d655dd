/** The list of files on the page. */

const STATES = {
  recording: "Recording",
  waiting: "Waiting",
  uploading: "Uploading",
  transcribing: "Transcribing",
  done: "Finished",
  failed: "Failed",
  cancelled: "Cancelled",
};
const RUNNING = ["uploading", "transcribing"];

/** What is said about the state of a job. */
export function describe(job) {
  if (job.state === "failed") return job.error.message;
  if (job.state === "uploading") return `Uploading, ${Math.round(job.uploaded * 100)} %`;
  return STATES[job.state];
}

function button(label, name, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.setAttribute("aria-label", `${label} ${name}`);
  made.addEventListener("click", act);
  return made;
}

/** Draws jobs into a list; items stay the same elements, so that the focus stays where it is. */
export class JobList {
  #list;
  #actions;
  #items = new Map();

  /**
   * @param list the ul.
   * @param actions show, cancel, retry and remove, each called with a job.
   */
  constructor(list, actions) {
    this.#list = list;
    this.#actions = actions;
  }

  /** Draws all jobs; `shown` is the one whose text is on the page. */
  draw(jobs, shown) {
    for (const [job, item] of this.#items) {
      if (!jobs.includes(job)) {
        item.root.remove();
        this.#items.delete(job);
      }
    }
    for (const job of jobs) this.#draw(job, job === shown);
  }

  #draw(job, shown) {
    const item = this.#items.get(job) ?? this.#make(job);
    item.root.classList.toggle("shown", shown);
    item.name.setAttribute("aria-current", String(shown));
    item.state.textContent = describe(job);
    item.state.classList.toggle("error", job.state === "failed");
    item.progress.hidden = !RUNNING.includes(job.state);
    if (job.state === "uploading") item.progress.value = job.uploaded;
    else item.progress.removeAttribute("value");
    const running = RUNNING.includes(job.state) || job.state === "waiting";
    item.name.textContent = job.name;
    item.cancel.hidden = !running;
    item.retry.hidden = job.state !== "failed" && job.state !== "cancelled";
    item.remove.hidden = running || job.state === "recording";
  }

  #make(job) {
    const make = (tag, className) =>
      Object.assign(document.createElement(tag), { className });
    const { name } = job;
    const item = {
      root: make("li", "job"),
      name: make("button", "job-name"),
      state: make("p", "job-state"),
      progress: make("progress", ""),
      cancel: button("Cancel", name, () => this.#actions.cancel(job)),
      retry: button("Try again", name, () => this.#actions.retry(job)),
      remove: button("Remove", name, () => this.#actions.remove(job)),
    };
    item.name.type = "button";
    item.name.dir = "auto";
    item.name.addEventListener("click", () => this.#actions.show(job));
    item.progress.setAttribute("aria-label", `Progress of ${name}`);
    const row = make("div", "row");
    row.append(item.cancel, item.retry, item.remove);
    item.root.append(item.name, item.progress, item.state, row);
    this.#list.append(item.root);
    this.#items.set(job, item);
    return item;
  }
}
