// Who asks: a user's id, or a history put together by clicks; and the items to put into it.
// What it gathers, app.js makes a request of.

import { ask } from "./api.js";
import { $, calmly, el, named } from "./dom.js";

const FOUND = 8; // items offered at a time
const SHOWN = 10; // of the history, the newest

export class Asker {
  /** Calls `changed(user is another)` when there is something else to ask, `pick(item)` for an
      item that is to be added, `failed(error)` for a search that failed. */
  constructor({ changed, pick, failed }) {
    this.user = "";
    this.items = []; // added on this page, oldest first
    this.stored = null; // what the service keeps of the user, oldest first; null: it does not say
    this.kept = true; // whether the service takes events, as far as we know
    this.changed = changed;
    this.pick = pick;
    this.failed = failed;
    $("user-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.become($("user").value.trim());
    });
    $("clear").addEventListener("click", () => this.#set([]));
    $("search").addEventListener("input", calmly(() => this.find().catch(failed), 150));
    this.#show();
  }

  /** What of the request says who asks. */
  get question() {
    const question = this.user ? { user_id: this.user } : {};
    if (this.items.length && !(this.user && this.kept)) {
      question.history = this.items.map((item) => item.item_id);
    }
    return question;
  }

  become(user) {
    const another = user !== this.user;
    this.user = $("user").value = user;
    if (another) [this.items, this.stored, this.kept] = [[], null, true];
    this.#show();
    this.recall();
    this.changed(another);
  }

  /** Shows what the service keeps of the user, where it says so. */
  async recall() {
    const { user } = this;
    if (!user || !this.kept) return;
    try {
      const { answer } = await ask("v1/history", { user_id: user });
      if (user === this.user) this.stored = answer.events;
      this.#show();
    } catch (error) {
      if (![403, 404, 503].includes(error.status)) this.failed(error); // may not, has none, keeps none
    }
  }

  add(item) {
    this.items = [...this.items.filter((one) => one.item_id !== item.item_id), item];
    this.#show();
    this.recall();
  }

  /** Offers popular items, those whose title or id holds what was typed. */
  async find() {
    const text = $("search").value.trim();
    const { answer } = await ask("v1/popular", text ? { n: FOUND, text } : { n: FOUND });
    if (text !== $("search").value.trim()) return; // typed on
    $("found").replaceChildren(...answer.items.map((item) => el("li", {},
      el("button", { type: "button", class: "item", onclick: () => this.pick(item) }, named(item)))));
    $("found-count").textContent = text ? `${answer.items.length} items found` : "";
  }

  offer(examples) {
    $("examples").hidden = !examples.length;
    $("examples").replaceChildren("For example ", ...examples.flatMap((id, at) => [
      at ? ", " : "",
      el("button", { type: "button", class: "quiet", onclick: () => this.become(id) }, id),
    ]));
  }

  #set(items) {
    this.items = items;
    this.#show();
    this.changed(false);
  }

  #show() {
    const rows = this.items.map((item) => el("li", {}, el("span", {}, named(item)),
      this.user && this.kept ? null : el("button", {
        type: "button", class: "quiet", "aria-label": `Take ${named(item)} out`,
        onclick: () => this.#set(this.items.filter((one) => one !== item)),
      }, "×")));
    const stored = (this.stored ?? []).map((event) => el("li", {}, el("span", {}, named(event)),
      el("span", { class: "hint" }, event.event ?? "")));
    const all = this.stored && this.kept ? stored : rows;
    $("history").replaceChildren(...all.reverse().slice(0, SHOWN));
    $("event-part").hidden = !(this.user && this.kept);
    $("clear").hidden = this.user !== "" || !this.items.length;
    $("history-hint").textContent = this.#hint(all.length);
  }

  #hint(length) {
    if (length > SHOWN) return `The newest ${SHOWN} of ${length}.`;
    if (length) return "";
    if (this.user) return "What the service knows of this user counts; what you click is added to it.";
    return "Nothing yet: click items below, or in the list.";
  }
}
