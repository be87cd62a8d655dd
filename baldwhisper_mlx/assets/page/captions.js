/** Draws live captions: finished utterances, then the one at hand, whose end may change. */

function line(...children) {
  const made = document.createElement("p");
  made.dir = "auto";
  made.append(...children);
  return made;
}

/**
 * Finished utterances are added to a live region, once each, so that a screen reader reads whole
 * sentences; drafts change outside of it.
 */
export class Captions {
  #finished;
  #drafts;
  #lines = new Map();

  /**
   * @param finished the live region.
   * @param drafts the element behind it.
   */
  constructor(finished, drafts) {
    this.#finished = finished;
    this.#drafts = drafts;
  }

  /** Draws utterances as `LiveSession` has them. */
  draw(utterances) {
    // one in which there were no words is none
    const items = utterances.filter(({ confirmed, unconfirmed }) => confirmed + unconfirmed);
    const follows = this.#drafts.getBoundingClientRect().bottom <= innerHeight + 100;
    for (const [item, made] of this.#lines) {
      if (!items.includes(item)) {
        made.remove();
        this.#lines.delete(item);
      }
    }
    let next = null;
    for (const item of items.filter(({ done }) => done).reverse()) {
      next = this.#lines.get(item) ?? this.#insert(item, next);
    }
    this.#drafts.replaceChildren(...items.filter(({ done }) => !done).map((item) => {
      const rest = document.createElement("span");
      rest.className = "unconfirmed";
      rest.textContent = item.unconfirmed;
      return line(item.confirmed, rest);
    }));
    if (follows) this.#drafts.scrollIntoView({ block: "nearest" });
  }

  #insert(item, next) {
    const made = line((item.confirmed + item.unconfirmed).trim());
    this.#lines.set(item, made);
    this.#finished.insertBefore(made, next);
    return made;
  }
}
