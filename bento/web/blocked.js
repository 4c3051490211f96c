// Items that nobody is to be shown: seen and changed only by those whose key may.

import { ask } from "./api.js";
import { $, el, named } from "./dom.js";

export class Blocked {
  /** Calls `changed()` when others may be shown than before, `failed(error)` in trouble. */
  constructor({ changed, failed }) {
    this.allowed = false; // until the service has said so
    this.changed = changed;
    this.failed = failed;
    this.titles = new Map(); // of items that were blocked here: the service answers with ids
  }

  /** Finds out whether we may. */
  async begin() {
    try {
      this.#show(await ask("v1/blocked", {}));
      this.allowed = true;
    } catch (error) {
      if (![403, 404, 503].includes(error.status)) throw error; // may not, has none, keeps none
    }
  }

  block(item) {
    this.titles.set(item.item_id, named(item));
    return this.#change({ add: [item.item_id] });
  }

  async #change(items) {
    try {
      this.#show(await ask("v1/blocked", items));
      await this.changed();
    } catch (error) {
      this.failed(error);
    }
  }

  #show({ answer: { items } }) {
    $("blocked-part").hidden = false;
    $("blocked-hint").hidden = items.length > 0;
    $("blocked").replaceChildren(...items.map((id) => {
      const name = this.titles.get(id) ?? id;
      const onclick = () => this.#change({ remove: [id] });
      return el("li", {}, el("span", {}, name),
        el("button", { type: "button", class: "quiet", "aria-label": `Unblock ${name}`, onclick }, "Unblock"));
    }));
  }
}
