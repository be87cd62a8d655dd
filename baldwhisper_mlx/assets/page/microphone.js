/** The microphone, and errors that say why there is none. */

const REASONS = {
  NotAllowedError: "The browser may not use the microphone. Allow it for this page and try again.",
  NotFoundError: "No microphone was found. Connect one and try again.",
  NotReadableError: "The microphone does not answer. Another program may be using it.",
};

/** Whether this browser lets this page record: it does on https and on localhost. */
export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && globalThis.MediaRecorder);
}

/** Asks for the microphone; an Error has a message for people. */
export async function openMicrophone() {
  if (!canRecord()) throw new Error("Recording needs https, or this page at localhost.");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `Recording failed: ${error.message}`);
  }
}
