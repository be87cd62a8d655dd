/**
 * Transcripts as txt, srt, vtt and json, made in the browser from one answer of the server.
 *
 * txt, srt and vtt are what `baldwhisper transcribe --output-format` writes of the same segments.
 */

export const MEDIA_TYPES = {
  txt: "text/plain",
  srt: "application/x-subrip",
  vtt: "text/vtt",
  json: "application/json",
};
const UNITS = ["bytes", "kB", "MB", "GB"];
/** What Python's str.splitlines divides at, and what its str.strip removes. */
const LINE_BREAK = /\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/;
const AROUND = /^(?:[^\S\ufeff]|[\x1c-\x1f\x85])+|(?:[^\S\ufeff]|[\x1c-\x1f\x85])+$/g;

/** Milliseconds, rounded half to even as Python does. */
function milliseconds(seconds) {
  const exact = seconds * 1000;
  const rounded = Math.round(exact);
  return rounded - exact === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** A time as [hh:]mm:ss, with milliseconds behind `point`; in srt always with hours. */
function stamp(seconds, point, alwaysHours) {
  const whole = milliseconds(seconds);
  const pad = (value, digits = 2) => String(Math.floor(value)).padStart(digits, "0");
  const hours = Math.floor(whole / 3600000);
  const rest = `${pad((whole / 60000) % 60)}:${pad((whole / 1000) % 60)}`;
  return `${alwaysHours || hours ? `${pad(hours)}:` : ""}${rest}${point}${pad(whole % 1000, 3)}`;
}

/** A time for people: m:ss, with hours if there are any. */
export function clock(seconds) {
  return stamp(Math.max(0, Math.floor(seconds)), ".").slice(0, -4).replace(/^0(?=\d)/, "");
}

/** A number of bytes for people. */
export function size(bytes) {
  const power = Math.min(3, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** power;
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[power]}`;
}

function oneLine(text) {
  const lines = text.split(LINE_BREAK).map((line) => line.replace(AROUND, ""));
  return lines.filter(Boolean).join(" ");
}

/** The transcript in a format of MEDIA_TYPES. */
export function write(format, result) {
  if (format === "json") return `${JSON.stringify(result, null, 2)}\n`;
  const segments = (result.segments ?? [])
    .map(({ start, end, text }) => ({ start, end, text: oneLine(text) }))
    .filter(({ text }) => text);
  const cues = (point, alwaysHours, escape) => segments.map(({ start, end, text }) => {
    const times = [start, end].map((time) => stamp(time, point, alwaysHours)).join(" --> ");
    return `${times}\n${escape(text).replace(/-{2,}>/g, "->")}\n\n`;
  });
  if (format === "srt") {
    return cues(",", true, (text) => text).map((cue, at) => `${at + 1}\n${cue}`).join("");
  }
  if (format === "vtt") {
    const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    return `WEBVTT\n\n${cues(".", false, escape).join("")}`;
  }
  if (format === "txt") {
    // a text without times is one that was interrupted
    const lines = segments.length ? segments.map(({ text }) => text) : [result.text.trim()];
    return lines.filter(Boolean).map((text) => `${text}\n`).join("");
  }
  throw new Error(`no format ${format}`);
}

/** Lets the browser save a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
