/** Live captions: OpenAI's realtime transcription over a websocket. */

import { apiKey } from "./api.js";
import { RATE } from "./capture.js";

const PATH = "v1/realtime?intent=transcription";
/** Characters that wait to be sent, above which the server is too slow: a minute of audio. */
const MOST_WAITING = 60 * RATE * 2 * (4 / 3);

function base64(samples) {
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  }
  return btoa(text);
}

function connect() {
  const url = new URL(PATH, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  // what a protocol may be called is less than what a key may be
  const key = encodeURIComponent(apiKey() ?? "").replaceAll("(", "%28").replaceAll(")", "%29");
  return new WebSocket(url, key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"]);
}

/**
 * One session. `change` says that `items` have changed, `end` (an Error as detail) that no more
 * comes; after `close` there is neither.
 */
export class LiveSession extends EventTarget {
  /** Utterances: id, confirmed and unconfirmed text, and whether it is done. */
  items = [];
  #socket;
  #waiting = [];
  #isOpen = false;
  #error = null;

  /**
   * @param options model and language, which may be empty.
   */
  constructor({ model, language }) {
    super();
    const transcription = { model, ...(language && { language }) };
    this.#socket = connect();
    this.#socket.onopen = () => {
      this.#isOpen = true;
      this.#send({
        type: "session.update",
        session: {
          type: "transcription",
          audio: {
            input: {
              format: { type: "audio/pcm", rate: RATE },
              transcription,
              turn_detection: { type: "server_vad" },
            },
          },
        },
      });
      for (const samples of this.#waiting.splice(0)) this.append(samples);
    };
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = ({ reason }) => this.#lost(reason);
  }

  /** Sends an Int16Array; what comes before the connection is there is sent then. */
  append(samples) {
    if (this.#socket.readyState === WebSocket.CONNECTING) this.#waiting.push(samples);
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > MOST_WAITING) {
      this.#end(new Error("The server is too slow for live captions."));
    } else {
      this.#send({ type: "input_audio_buffer.append", audio: base64(samples) });
    }
  }

  /** All text so far, with a line for each utterance. */
  get text() {
    const lines = this.items.map((item) => (item.confirmed + item.unconfirmed).trim());
    return lines.filter(Boolean).join("\n");
  }

  /** Ends the session; its text stays. */
  close() {
    this.#socket.onclose = null;
    this.#socket.onmessage = null;
    this.#socket.close();
  }

  #send(event) {
    this.#socket.send(JSON.stringify(event));
  }

  #end(error) {
    this.close();
    this.dispatchEvent(new CustomEvent("end", { detail: error }));
  }

  #lost(reason) {
    this.#end(this.#error ?? new Error(
      reason || (this.#isOpen
        ? "The connection to the server was lost."
        : "The server refuses live captions, or does not answer.")));
  }

  #item(id) {
    let item = this.items.find((other) => other.id === id);
    if (!item) this.items.push((item = { id, confirmed: "", unconfirmed: "", done: false }));
    return item;
  }

  #receive(event) {
    const kind = event.type.replace("conversation.item.input_audio_transcription.", "");
    if (kind === "error") {
      this.#error = new Error(event.error.message);
      this.dispatchEvent(new CustomEvent("problem", { detail: this.#error }));
    } else if (kind === "input_audio_buffer.speech_started") {
      this.#item(event.item_id);
    } else if (kind === "delta") {
      const item = this.#item(event.item_id);
      item.confirmed += event.delta;
      item.unconfirmed = event.unconfirmed ?? "";
    } else if (kind === "completed") {
      const done = { confirmed: event.transcript, unconfirmed: "", done: true };
      Object.assign(this.#item(event.item_id), done);
    } else if (kind === "failed") {
      this.#item(event.item_id).done = true;
      const detail = new Error(event.error?.message ?? "An utterance could not be transcribed.");
      this.dispatchEvent(new CustomEvent("problem", { detail }));
    } else {
      return;
    }
    this.dispatchEvent(new Event("change"));
  }
}
