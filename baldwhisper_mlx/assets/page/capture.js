/** The microphone as samples for the API: 16 bits, one channel, 24 kHz. */

import { Resampler } from "./resampler.js";

export const RATE = 24000;

/** Samples with full scale at 1 as 16-bit integers. */
export function toPcm16(samples) {
  return Int16Array.from(samples, (value) =>
    Math.round(Math.max(-1, Math.min(1, value)) * 32767));
}

/**
 * Begins to hand on what a MediaStream records.
 *
 * @param stream of a microphone.
 * @param take called with an Int16Array about ten times a second.
 * @returns a function that ends it.
 */
export async function capture(stream, take) {
  const context = new AudioContext();
  try {
    if (!context.audioWorklet) throw new Error("This browser is too old for them.");
    await context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "capture", {
      channelCount: 1,
      channelCountMode: "explicit",
    });
    const resampler = new Resampler(Math.round(context.sampleRate), RATE);
    node.port.onmessage = ({ data }) => take(toPcm16(resampler.push(data)));
    // a node that leads nowhere is not run by every browser; this one's output is silence
    context.createMediaStreamSource(stream).connect(node).connect(context.destination);
    await context.resume();
    return () => context.close();
  } catch (error) {
    await context.close();
    throw error;
  }
}
