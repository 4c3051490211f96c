// One answer as a ranked list: rows stay the same elements while their items stay, so that they
// can be seen to move, and the keyboard's focus is not lost. Asks nothing itself.

import { el, named } from "./dom.js";

const MOVE = { duration: 350, easing: "cubic-bezier(.2, .7, .2, 1)" };
const NOTES = {
  store: "The event store is away: what the user did since the release is not in it.",
  explanations: "Not every reason came in time.",
};
const SIGNALS = 7; // of a reason, by name: the strongest
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class RankedList {
  /** Calls `pick(item, answer)` for a click on an item; `block(item)` too, unless that is null. */
  constructor({ pick, block }) {
    this.pick = pick;
    this.block = block;
    this.title = el("h3");
    this.about = el("p", { class: "about" });
    this.notes = el("p", { class: "notice", hidden: true });
    this.rows = el("ol", { class: "ranked", role: "list" });
    this.element = el("div", { class: "list" }, this.title, this.about, this.notes, this.rows);
  }

  /** Shows `answer`, which took `ms`, and how its ranks differ from `others` ({item_id: rank}, or
      null): those before, or those of the list `beside`. */
  show(name, { answer, ms }, others, beside = false) {
    this.answer = answer;
    this.beside = beside;
    this.title.textContent = name;
    this.about.textContent = [
      `release ${answer.release}`, answer.model, `variant ${answer.variant}`, `${ms.toFixed(0)}\u00a0ms`,
    ].join(" · ");
    const notes = remarks(answer);
    this.notes.hidden = notes.length === 0;
    this.notes.textContent = notes.join(" ");
    this.#replace(answer.items, others);
  }

  get ranks() {
    return new Map((this.answer?.items ?? []).map((item) => [item.item_id, item.rank]));
  }

  #replace(items, others) {
    const old = new Map(Array.from(this.rows.children, (row) => [row.dataset.id, row]));
    const tops = new Map(Array.from(old, ([id, row]) => [id, row.offsetTop]));
    const focus = this.#focus();
    const rows = items.map((item) => this.#row(item, old.get(item.item_id), others));
    this.rows.replaceChildren(...rows);
    if (focus) {
      const row = rows.find((one) => one.dataset.id === focus.id) ?? rows.at(focus.index) ?? rows.at(-1);
      (row?.querySelector(focus.kind) ?? row?.querySelector(".title"))?.focus({ preventScroll: true });
    }
    if (!calm.matches && tops.size) rows.forEach((row) => move(row, tops.get(row.dataset.id)));
  }

  /** Where in the list the keyboard's focus is: rows are built anew, and their items may go. */
  #focus() {
    const row = this.rows.contains(document.activeElement) && document.activeElement.closest("li");
    if (!row) return null;
    const kind = [".title", ".block", "summary"].find((one) => document.activeElement.matches(one));
    return { id: row.dataset.id, index: Array.from(this.rows.children).indexOf(row), kind };
  }

  #row(item, row, others) {
    row ??= el("li", { "data-id": item.item_id });
    const open = row.querySelector("details")?.open ?? false;
    row.replaceChildren(
      el("span", { class: "rank" }, String(item.rank), shift(item, others, this.beside)),
      el("div", { class: "what" },
        el("button", { type: "button", class: "title", onclick: () => this.pick(item, this.answer) }, named(item)),
        item.categories.length ? el("p", { class: "categories" }, item.categories.join(", ")) : null,
        item.reason ? reason(item.reason, open) : null),
      el("div", { class: "end" }, score(item), this.block && blockButton(item, this.block)),
    );
    return row;
  }
}

const score = ({ score, pinned }) => el("span", { class: "score" },
  ...(score === undefined ? [pinned ? "pinned" : ""]
    : [el("span", { class: "vh" }, "score "), score.toFixed(3)]));

const blockButton = (item, block) => el("button", {
  type: "button", class: "quiet block", "aria-label": `Block ${named(item)}`, onclick: () => block(item),
}, "Block");

/** What an answer says of itself beside its items. */
function remarks(answer) {
  const said = (answer.notes ?? []).map((note) => NOTES[note] ?? `${note}.`);
  if (answer.fallback) said.unshift("The model did not answer in time: these are popular items.");
  if (answer.ignored.length) said.push(`Not known to this release, and ignored: ${answer.ignored.join(", ")}.`);
  return said;
}

/** How an item's rank differs from that in `others`, in a sign and in words. */
function shift(item, others, beside) {
  if (!others?.size) return null;
  const by = others.has(item.item_id) ? others.get(item.item_id) - item.rank : null;
  if (by === 0) return null;
  const [sign, words] = by > 0 ? [`↑${by}`, `${by} higher`] : by < 0 ? [`↓${-by}`, `${-by} lower`]
    : beside ? ["only", "in this list only"] : ["new", "new in the list"];
  return el("span", { class: by === null ? "shift new" : "shift" },
    el("span", { "aria-hidden": "true" }, sign), el("span", { class: "vh" }, `, ${words}`));
}

/** The sentence; behind it, what the signals added to the score. */
function reason({ text, signals = [] }, open) {
  if (!signals.length) return el("p", { class: "reason" }, text);
  const strongest = signals.toSorted((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
  const rest = strongest.splice(SIGNALS);
  const rows = strongest.map((one) => row(one.name.replaceAll("_", " "), one.contribution));
  if (rest.length) rows.push(row(`${rest.length} others`, total(rest)));
  return el("details", { class: "reason", open }, el("summary", {}, text),
    el("table", {}, el("caption", {}, "What the signals added to the score"), el("tbody", {}, ...rows)));
}

const row = (name, value) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, signed(value)));
const total = (signals) => signals.reduce((sum, one) => sum + one.contribution, 0);
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

function move(row, top) {
  if (top === undefined) row.animate([{ opacity: 0 }, { opacity: 1 }], MOVE);
  else if (top !== row.offsetTop) {
    row.animate([{ transform: `translateY(${top - row.offsetTop}px)` }, { transform: "none" }], MOVE);
  }
}
