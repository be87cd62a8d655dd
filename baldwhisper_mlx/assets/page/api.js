/** Requests to the server's API. */

const KEY = "baldwhisper-api-key";
const HALFWAY = "The connection ended before the transcript did. Try again.";

/** An error that people can read; `status` is that of the HTTP answer, 0 without one. */
export class ApiFailure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Keeps the API key until the tab is closed. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The API key; null without one. */
export function apiKey() {
  return sessionStorage.getItem(KEY);
}

function headers() {
  const key = apiKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function failure(status, body) {
  let message = "";
  try {
    message = JSON.parse(body).error.message;
  } catch {
    message = status ? "" : "The server does not answer. Is it still running?";
  }
  return new ApiFailure(message || `The server answered with status ${status}.`, status);
}

/** JSON from a path of the server. */
export async function getJson(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: headers() });
  } catch {
    throw failure(0, "");
  }
  const body = await answer.text();
  if (!answer.ok) throw failure(answer.status, body);
  return JSON.parse(body);
}

/** Splits server-sent events as they come; `push` takes the whole text so far. */
class Events {
  #read = 0;

  push(text) {
    const events = [];
    for (;;) {
      const end = text.indexOf("\n\n", this.#read);
      if (end < 0) return events;
      const data = text
        .slice(this.#read, end)
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart())
        .join("\n");
      this.#read = end + 2;
      if (data && data !== "[DONE]") events.push(JSON.parse(data));
    }
  }
}

function form(file, options) {
  const data = new FormData();
  if (options.model) data.append("model", options.model);
  data.append("response_format", "verbose_json");
  if (options.task === "transcribe") {
    if (options.language) data.append("language", options.language);
    data.append("stream", "true");
    data.append("timestamp_granularities[]", "segment");
    data.append("timestamp_granularities[]", "word");
  }
  data.append("file", file, file.name);
  return data;
}

/** Why a request got no answer. A browser does not say, so this asks the file and the server. */
async function lost(file, hasBegun) {
  // a file that has been deleted is empty, or cannot be read
  const first = await file.slice(0, 1).arrayBuffer().catch(() => null);
  if (!first?.byteLength) {
    return new ApiFailure("The browser cannot read this file any more. Choose it again.");
  }
  try {
    await getJson("v1/models");
  } catch (error) {
    return error;
  }
  return new ApiFailure(hasBegun ? HALFWAY
    : "The server closed the connection before it had answered. Try again.");
}

function warningsOf(request) {
  return JSON.parse(request.getResponseHeader("X-Baldwhisper-Warnings") ?? "[]");
}

/**
 * Transcribes a file, or translates it into English, in one request. fetch cannot tell how much of
 * an upload has been sent; XMLHttpRequest can.
 *
 * @param file a File.
 * @param options model, language, task.
 * @param steps signal, onUpload(fraction); onText(text so far) and onPart({segments, words}) while
 *   segments are finished, which those of a translation are not.
 * @returns the answer of verbose_json: text, segments, words, language, duration; and warnings.
 */
export function transcribe(file, options, { signal, onUpload, onText, onPart }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const events = new Events();
    let text = "";
    let last = null;
    const isStream = () =>
      (request.getResponseHeader("Content-Type") ?? "").startsWith("text/event-stream");
    const read = () => {
      for (const event of events.push(request.responseText)) {
        if (event.error) throw failure(500, JSON.stringify(event));
        if (event.type === "transcript.text.delta") onText((text += event.delta));
        if (event.type === "baldwhisper.segments") onPart(event);
        if (event.type === "transcript.text.done") last = event;
      }
    };
    const guarded = (step) => () => {
      try {
        step();
      } catch (error) {
        reject(error);
        request.abort();
      }
    };
    const translates = options.task === "translate";
    request.open("POST", translates ? "v1/audio/translations" : "v1/audio/transcriptions");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onUpload(event.loaded / event.total);
    request.upload.onload = () => onUpload(1);
    request.onprogress = guarded(() => request.status === 200 && isStream() && read());
    request.onload = guarded(() => {
      if (request.status !== 200) throw failure(request.status, request.responseText);
      if (isStream()) read();
      else last = { ...JSON.parse(request.responseText), warnings: warningsOf(request) };
      if (!last) throw new ApiFailure(HALFWAY);
      resolve(last);
    });
    request.onerror = async () => reject(await lost(file, text !== ""));
    request.onabort = () => reject(new ApiFailure("Cancelled."));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form(file, options));
  });
}
