/** Runs where the browser processes audio: hands samples to the page in blocks of 0.1 s. */

class Capture extends AudioWorkletProcessor {
  #block = new Float32Array(Math.ceil(sampleRate / 10));
  #filled = 0;

  process([[samples]]) {
    // nothing comes before the microphone has begun
    for (let read = 0; read < (samples?.length ?? 0); ) {
      const part = samples.subarray(read, read + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      read += part.length;
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
