// The filter by category: a box for each, the largest first; of very many those that match what
// was typed. Knows no request.

import { $, el } from "./dom.js";

const AT_ONCE = 60; // boxes on the page

/** A filter that calls `changed()`; `offer([{category, items}])` fills it. */
export class Categories {
  constructor(changed) {
    this.all = [];
    this.chosen = new Set();
    this.changed = changed;
    $("narrow").addEventListener("input", () => this.#boxes());
    $("all-categories").addEventListener("click", () => {
      this.chosen.clear();
      this.#boxes();
      this.#tell();
    });
  }

  offer(all) {
    this.all = all;
    $("categories").hidden = !all.length;
    $("narrow-part").hidden = all.length <= AT_ONCE;
    this.#boxes();
  }

  #boxes() {
    const text = $("narrow").value.trim().toLowerCase();
    const fits = ({ category }) => this.chosen.has(category) || category.toLowerCase().includes(text);
    $("category-boxes").replaceChildren(...this.all.filter(fits).slice(0, AT_ONCE).map((one) => this.#box(one)));
  }

  #box({ category, items }) {
    const box = el("input", { type: "checkbox", checked: this.chosen.has(category) });
    box.addEventListener("change", () => {
      if (box.checked) this.chosen.add(category);
      else this.chosen.delete(category);
      this.#tell();
    });
    return el("label", {}, box, " ", category, " ", el("span", { class: "count" }, String(items)));
  }

  #tell() {
    $("categories-chosen").textContent = [...this.chosen].join(", ") || "all";
    this.changed();
  }
}
