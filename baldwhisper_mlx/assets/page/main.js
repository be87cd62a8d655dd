/** Connects the parts of the page. */

import { Captions } from "./captions.js";
import { Choices } from "./choices.js";
import { MEDIA_TYPES, download, write } from "./formats.js";
import { JobList, describe } from "./jobs.js";
import { canRecord } from "./microphone.js";
import { Player } from "./player.js";
import { Queue } from "./queue.js";
import { RecordButton } from "./record-button.js";
import { TranscriptView } from "./transcript.js";

const get = (id) => document.getElementById(id);
const queue = new Queue();
const choices = new Choices(problem);
const view = new TranscriptView(
  new Player(get("player"), get("text")),
  new Captions(get("captions-finished"), get("captions-drafts")),
  (name) => choices.codeOf(name),
);
const button = new RecordButton(queue, choices, { problem, show });
let shown = null;
let awaitsFrame = false;

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
  const jobs = [...files].map((file) => queue.add(file, choices.now));
  if (jobs.length && !["done", "recording"].includes(shown?.state)) show(jobs[0]);
}

function show(job) {
  shown = job;
  draw();
}

/** Draws once for all that happens between two frames: text may come faster than it is laid out. */
function draw() {
  if (awaitsFrame) return;
  awaitsFrame = true;
  requestAnimationFrame(drawNow);
}

function drawNow() {
  awaitsFrame = false;
  get("queue-title").hidden = !queue.jobs.length;
  list.draw(queue.jobs, shown);
  view.draw(shown);
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

async function copy() {
  try {
    await navigator.clipboard.writeText(write("txt", view.transcript).trimEnd());
    say("Copied.");
    get("copy").textContent = "Copied";
    setTimeout(() => (get("copy").textContent = "Copy"), 1500);
  } catch {
    problem("The browser did not allow copying. Select the text and copy it by hand.");
  }
}

queue.addEventListener("change", ({ detail: job }) => {
  if (["done", "failed"].includes(job.state)) say(`${job.name}: ${describe(job)}`);
  if (job.state === "failed") choices.askForKey(job.error);
  draw();
});
choices.addEventListener("loaded", () => {
  queue.maxUpload = choices.settings.max_upload;
});
get("pick").addEventListener("click", () => get("files").click());
get("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
get("copy").addEventListener("click", copy);
for (const save of document.querySelectorAll("[data-format]")) {
  const { format } = save.dataset;
  save.addEventListener("click", () => {
    const stem = shown.name.replace(/\.[^.]+$/, "");
    download(`${stem}.${format}`, write(format, view.transcript), MEDIA_TYPES[format]);
  });
}
addEventListener("beforeunload", (event) => {
  if (button.isRecording) event.preventDefault();
});
get("no-microphone").hidden = canRecord();
get("record").hidden = !canRecord();
acceptDrops();
choices.load();
