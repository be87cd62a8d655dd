/** Records a microphone into a file, in a format of the browser's choice. */

const ENDINGS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };

/** One recording, which begins at once. */
export class Recorder {
  #recorder;
  #parts = [];
  #ended;

  /** @param stream of a microphone. */
  constructor(stream) {
    this.#recorder = new MediaRecorder(stream);
    this.#recorder.ondataavailable = (event) => this.#parts.push(event.data);
    this.#ended = new Promise((resolve) => (this.#recorder.onstop = resolve));
    this.#recorder.start(1000);
  }

  /** Ends the recording, and returns a File whose name begins with `stem`. */
  async stop(stem) {
    // it has ended by itself if the microphone is gone
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    await this.#ended;
    const type = this.#recorder.mimeType.split(";")[0];
    return new File(this.#parts, `${stem}.${ENDINGS[type] ?? "webm"}`, { type });
  }
}
