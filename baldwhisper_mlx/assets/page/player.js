/** The transcript of one job: its segments, and words that light up while the recording plays. */

import { clock } from "./formats.js";

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * Finds the words of an answer in the texts of its segments, so that spaces and scripts without
 * spaces stay as the model wrote them.
 *
 * @returns for each segment a list of [text, word or null].
 */
export function placeWords(segments, words) {
  let at = 0;
  return segments.map((segment) => {
    const pieces = [];
    let read = 0;
    for (; at < words.length; at += 1) {
      const found = segment.text.indexOf(words[at].word, read);
      const later = words[at].start >= segment.end && segment !== segments.at(-1);
      if (found < 0 || later) {
        if (later || words[at].end > segment.end) break;
        continue;
      }
      if (found > read) pieces.push([segment.text.slice(read, found), null]);
      pieces.push([words[at].word, words[at]]);
      read = found + words[at].word.length;
    }
    if (read < segment.text.length) pieces.push([segment.text.slice(read), null]);
    return pieces;
  });
}

/** Shows results in `text` and plays them by the media element `audio`. */
export class Player {
  #audio;
  #text;
  #words = [];
  #spans = [];
  #now = -1;
  #shown = [];

  constructor(audio, text) {
    this.#audio = audio;
    this.#text = text;
    // timeupdate comes four times a second, too rarely for words
    const follow = () => {
      this.#light();
      if (!audio.paused && !audio.ended) requestAnimationFrame(follow);
    };
    audio.addEventListener("play", follow);
    audio.addEventListener("seeked", () => this.#light());
    text.addEventListener("click", (event) => this.#click(event));
    text.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Shows text without times, while it is being written. */
  draft(text) {
    this.#reset();
    this.#text.append(element("p", { className: "words", dir: "auto", textContent: text }));
  }

  /**
   * Shows a transcript with its words, or what there is of it.
   *
   * @param parts a list of { segments, words }; what it has in common with the list before stays.
   */
  show(parts) {
    if (!this.#shown.length || this.#shown.some((part, at) => part !== parts[at])) this.#reset();
    for (const part of parts.slice(this.#shown.length)) this.#append(part);
    this.#shown = parts;
    this.#text.tabIndex = this.#words.length ? 0 : -1;
  }

  #append({ segments, words }) {
    const pieces = placeWords(segments, words ?? []);
    segments.forEach((segment, at) => {
      const time = clock(segment.start);
      const jump = element("button", { type: "button", textContent: time });
      jump.dataset.start = segment.start;
      jump.setAttribute("aria-label", `Play from ${time}`);
      const line = element("span", { className: "words", dir: "auto" });
      for (const [text, word] of pieces[at]) line.append(word ? this.#span(text, word) : text);
      this.#text.append(element("p", { className: "segment" }, jump, line));
    });
  }

  #span(text, word) {
    const span = element("span", { className: "word", textContent: text });
    span.dataset.start = word.start;
    this.#words.push(word);
    this.#spans.push(span);
    return span;
  }

  #reset() {
    this.#text.replaceChildren();
    this.#text.removeAttribute("tabindex");
    this.#words = [];
    this.#spans = [];
    this.#shown = [];
    this.#now = -1;
  }

  /** The last word that has begun, by bisection; -1 before the first. */
  #wordAt(time) {
    let [low, high] = [0, this.#words.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#words[middle].start <= time + 0.001) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #light() {
    const now = this.#wordAt(this.#audio.currentTime);
    if (now === this.#now) return;
    this.#spans[this.#now]?.classList.remove("now");
    this.#spans[now]?.classList.add("now");
    this.#now = now;
    if (!this.#audio.paused) this.#spans[now]?.scrollIntoView({ block: "nearest" });
  }

  #click(event) {
    const start = event.target.dataset.start;
    if (start === undefined || String(getSelection())) return;
    this.#audio.currentTime = Number(start);
    // a browser that cannot play the format shows the text all the same
    this.#audio.play().catch(() => {});
  }

  #key(event) {
    if (event.key === "Enter" && event.target === this.#text) {
      if (this.#audio.paused) this.#audio.play().catch(() => {});
      else this.#audio.pause();
      return;
    }
    const arrow = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!arrow || event.altKey || event.ctrlKey || event.metaKey) return;
    const now = this.#wordAt(this.#audio.currentTime);
    const { direction } = getComputedStyle(this.#spans[Math.max(now, 0)] ?? this.#text);
    const next = now + (direction === "rtl" ? -arrow : arrow);
    if (!this.#words[next]) return;
    event.preventDefault();
    this.#audio.currentTime = this.#words[next].start;
    this.#spans[next].scrollIntoView({ block: "nearest" });
  }
}
