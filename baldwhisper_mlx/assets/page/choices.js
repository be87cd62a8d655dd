/** What the server offers, and what is chosen for the next files. */

import { getJson, useKey } from "./api.js";

const get = (id) => document.getElementById(id);

/** The models, languages and limits of the server, as controls; `loaded`: they are there. */
export class Choices extends EventTarget {
  /** Largest file and whether there are live captions; see server/page.py. */
  settings = { max_upload: Infinity, realtime: false };
  #languages = {};

  /** @param problem shows a message, or none. */
  constructor(problem) {
    super();
    this.problem = problem;
    get("task").addEventListener("change", () => this.#follow());
    get("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      useKey(get("key").value);
      this.load();
    });
  }

  /** Asks the server. */
  async load() {
    try {
      const [models, languages, settings] = await Promise.all(
        ["v1/models", "page/languages.json", "page/settings.json"].map(getJson));
      const chosen = get("model").value;
      get("model").replaceChildren(...models.data.map(({ id }) => new Option(id, id)));
      if (chosen) get("model").value = chosen;
      this.#languages = languages;
      const names = Object.entries(languages).map(([code, name]) => new Option(name, code));
      get("language").replaceChildren(new Option("Detect", ""), ...names);
      this.settings = settings;
      this.#follow();
      get("key-form").hidden = true;
      this.problem("");
      this.dispatchEvent(new Event("loaded"));
    } catch (error) {
      this.askForKey(error);
      this.problem(error.message);
    }
  }

  /** Shows the field for the key, if an error is for want of one. */
  askForKey(error) {
    if (error.status === 401) get("key-form").hidden = false;
  }

  /** Model, language and task as they are chosen now. */
  get now() {
    const [model, language, task] = ["model", "language", "task"].map((id) => get(id).value);
    return { model, language, task };
  }

  /** The code of a language that verbose_json names, for the attribute `lang`; or "". */
  codeOf(name) {
    const found = Object.entries(this.#languages).find(([, other]) =>
      other.toLowerCase() === name?.toLowerCase());
    return found?.[0] ?? "";
  }

  /** Captions are in the language that is spoken, so a translation has none. */
  #follow() {
    const translates = get("task").value === "translate";
    get("language").disabled = translates;
    get("captions").disabled = translates;
    get("captions-choice").hidden = !this.settings.realtime;
  }
}
