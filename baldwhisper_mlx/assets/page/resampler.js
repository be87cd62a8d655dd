/** Changes the sampling rate of a stream of samples, by windowed-sinc interpolation. */

const CROSSINGS = 16;
const PASSED = 0.94;

/**
 * The samples that `push` returns continue those before.
 *
 * Browsers can resample a microphone themselves, but not all do: Firefox refuses to connect one to
 * an AudioContext of another rate. So this is how it is done in all of them.
 */
export class Resampler {
  #from;
  #to;
  #cutoff;
  #half;
  #weights = new Map();
  #made = 0;
  #kept;
  #first;

  /**
   * @param from rate of the samples that are pushed, an integer.
   * @param to rate of the samples that are returned, an integer.
   */
  constructor(from, to) {
    this.#from = from;
    this.#to = to;
    // of the rate at the input, below the highest frequency that both rates have
    this.#cutoff = Math.min(1, to / from) * PASSED;
    this.#half = Math.ceil(CROSSINGS / this.#cutoff);
    this.#first = 1 - this.#half;
    this.#kept = new Float32Array(this.#half - 1);
  }

  /** The weights of 2 * half samples for a position between two; positions repeat. */
  #weightsAt(phase) {
    let weights = this.#weights.get(phase);
    if (!weights) {
      weights = new Float32Array(2 * this.#half).map((_, tap) => {
        const x = tap + 1 - this.#half - phase / this.#to;
        const sinc = x ? Math.sin(Math.PI * this.#cutoff * x) / (Math.PI * x) : this.#cutoff;
        return sinc * (0.5 + 0.5 * Math.cos((Math.PI * x) / this.#half));
      });
      this.#weights.set(phase, weights);
    }
    return weights;
  }

  /** Takes a Float32Array, and returns one with what can be computed by now. */
  push(samples) {
    const input = new Float32Array(this.#kept.length + samples.length);
    input.set(this.#kept);
    input.set(samples, this.#kept.length);
    const output = [];
    let begin;
    for (;;) {
      const position = this.#made * this.#from;
      begin = Math.floor(position / this.#to) + 1 - this.#half - this.#first;
      if (begin + 2 * this.#half > input.length) break;
      const weights = this.#weightsAt(position % this.#to);
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap += 1) sum += weights[tap] * input[begin + tap];
      output.push(sum);
      this.#made += 1;
    }
    this.#kept = input.slice(begin);
    this.#first += Math.min(begin, input.length);
    return Float32Array.from(output);
  }
}
