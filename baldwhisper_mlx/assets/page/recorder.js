/** Records the microphone into a file. */

const ENDINGS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };

function reason(error) {
  if (error.name === "NotAllowedError") {
    return "The browser may not use the microphone. Allow it for this page and try again.";
  }
  if (error.name === "NotFoundError") return "No microphone was found.";
  return `Recording failed: ${error.message}`;
}

/** One microphone; `start` and `stop` may be called in turn as often as you like. */
export class Recorder {
  #recorder = null;
  #parts = [];
  #count = 0;

  /** Whether a recording is being made. */
  get active() {
    return this.#recorder !== null;
  }

  /** Asks for the microphone and begins; an Error has a message for people. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Recording needs https, or this page at localhost.");
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const parts = [];
      this.#parts = parts;
      this.#recorder = new MediaRecorder(stream);
      this.#recorder.ondataavailable = (event) => parts.push(event.data);
      this.#recorder.start(1000);
    } catch (error) {
      throw new Error(reason(error));
    }
  }

  /** Ends the recording, frees the microphone, and returns a File. */
  stop() {
    const recorder = this.#recorder;
    const parts = this.#parts;
    this.#recorder = null;
    return new Promise((resolve) => {
      recorder.onstop = () => {
        for (const track of recorder.stream.getTracks()) track.stop();
        const type = recorder.mimeType.split(";")[0];
        const name = `recording-${(this.#count += 1)}.${ENDINGS[type] ?? "webm"}`;
        resolve(new File(parts, name, { type }));
      };
      recorder.stop();
    });
  }
}
