/** A recording that is being made: the microphone, its file, and live captions if wanted. */

import { capture } from "./capture.js";
import { LiveSession } from "./live.js";
import { openMicrophone } from "./microphone.js";
import { Recorder } from "./recorder.js";

const CONTINUES = "The recording continues, and is transcribed when you stop it.";

/**
 * One recording. `change` says that captions have changed, `problem` (an Error as detail) that
 * there are none any more or that a part is missing, `unplugged` that the microphone is gone.
 */
export class Recording extends EventTarget {
  begun = Date.now();
  #stream;
  #recorder;
  #session = null;
  #endCapture = null;
  #isOver = false;

  /** @param stream of a microphone. */
  constructor(stream) {
    super();
    this.#stream = stream;
    this.#recorder = new Recorder(stream);
    stream.getTracks()[0].onended = () => this.dispatchEvent(new Event("unplugged"));
  }

  /** Asks for the microphone and begins; an Error has a message for people. */
  static async start() {
    const stream = await openMicrophone();
    try {
      return new Recording(stream);
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw new Error(`Recording failed: ${error.message}`);
    }
  }

  /** Begins live captions; that they fail is a `problem`. */
  async addCaptions(options) {
    try {
      this.#session = new LiveSession(options);
      this.#session.addEventListener("change", () => this.dispatchEvent(new Event("change")));
      this.#session.addEventListener("problem", ({ detail }) => this.#problem(detail));
      this.#session.addEventListener("end", ({ detail }) => {
        this.#endCaptions();
        this.#problem(new Error(`${detail.message} ${CONTINUES}`));
      });
      const end = await capture(this.#stream, (samples) => this.#session.append(samples));
      if (this.#isOver) end();
      else this.#endCapture = end;
    } catch (error) {
      this.#endCaptions();
      this.#problem(new Error(`No live captions: ${error.message} ${CONTINUES}`));
    }
  }

  /** Utterances; see `LiveSession`. */
  get items() {
    return this.#session?.items ?? [];
  }

  /** The text of the captions. */
  get text() {
    return this.#session?.text ?? "";
  }

  /** Ends everything, frees the microphone, and returns a File whose name begins with `stem`. */
  async stop(stem) {
    this.#endCaptions();
    const file = await this.#recorder.stop(stem);
    for (const track of this.#stream.getTracks()) track.stop();
    return file;
  }

  #endCaptions() {
    this.#isOver = true;
    this.#endCapture?.();
    this.#endCapture = null;
    this.#session?.close();
  }

  #problem(detail) {
    this.dispatchEvent(new CustomEvent("problem", { detail }));
  }
}
