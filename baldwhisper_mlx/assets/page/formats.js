/** Transcripts as txt, srt, vtt and json, made in the browser from one answer of the server. */

export const MEDIA_TYPES = {
  txt: "text/plain",
  srt: "application/x-subrip",
  vtt: "text/vtt",
  json: "application/json",
};

/** A time as hh:mm:ss, with milliseconds behind `point`. */
function stamp(seconds, point) {
  const whole = Math.max(0, Math.round(seconds * 1000));
  const pad = (value, digits) => String(value).padStart(digits, "0");
  const [h, m, s] = [whole / 3600000, (whole / 60000) % 60, (whole / 1000) % 60].map(Math.floor);
  return `${pad(h, 2)}:${pad(m, 2)}:${pad(s, 2)}${point}${pad(whole % 1000, 3)}`;
}

/** A time for people: m:ss, with hours if there are any. */
export function clock(seconds) {
  const [hours, rest] = stamp(Math.floor(seconds), ".").slice(0, 8).split(/:(.*)/);
  return Number(hours) ? `${Number(hours)}:${rest}` : rest.replace(/^0/, "");
}

/** A cue must not hold an empty line, nor the arrow that stands between its times. */
function cueText(text) {
  return text.trim().replace(/\n\s*\n/g, "\n").replaceAll("-->", "->");
}

/** The transcript in a format of MEDIA_TYPES. */
export function write(format, result) {
  const segments = (result.segments ?? []).filter((segment) => segment.text.trim());
  const times = (segment, point) =>
    `${stamp(segment.start, point)} --> ${stamp(segment.end, point)}`;
  if (format === "srt") {
    return segments
      .map((segment, at) => `${at + 1}\n${times(segment, ",")}\n${cueText(segment.text)}\n`)
      .join("\n");
  }
  if (format === "vtt") {
    const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    const cues = segments.map((segment) =>
      `${times(segment, ".")}\n${escape(cueText(segment.text))}\n`);
    return ["WEBVTT\n", ...cues].join("\n");
  }
  if (format === "json") {
    return `${JSON.stringify(result, null, 2)}\n`;
  }
  if (format === "txt") {
    const lines = segments.map((segment) => segment.text.trim());
    return `${lines.length ? lines.join("\n") : result.text.trim()}\n`;
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
