// The page: controls -> a request -> one list, or two side by side; and clicks -> events.
// Modules: asker.js (who asks), categories.js (the filter), blocked.js (what nobody is shown),
// list.js (an answer), api.js (the service), dom.js (elements).

import { ApiError, ask, eventId, key } from "./api.js";
import { Asker } from "./asker.js";
import { Blocked } from "./blocked.js";
import { Categories } from "./categories.js";
import { $, calmly, el, named } from "./dom.js";
import { RankedList } from "./list.js";

const DEADLINE_MS = 1500; // a person waits longer than a shop: rather late than without reasons
const STEP = 10; // items at first, and more by "Show more"

let n = STEP;
let asked = null; // AbortController of the question under way
let lists = [];
const asker = new Asker({
  changed: (another) => refresh({ another }),
  pick: (item) => pick(item, null),
  failed,
});
const blocked = new Blocked({ changed: () => refresh(), failed });
const categories = new Categories(() => refresh());

// ---------------------------------------------------------------- asking

/** Asks for every list that is to be seen, and shows the answers together; `said` comes first in
    the line that is read aloud. Nothing is compared with the lists of `another` user. */
async function refresh({ another = false, said = "" } = {}) {
  asked?.abort();
  const mine = (asked = new AbortController());
  const choices = [$("left"), $("right")].map((select) => select.selectedOptions[0]);
  const seen = choices.filter((choice, at) => at === 0 || choice?.value);
  $("lists").setAttribute("aria-busy", "true");
  try {
    const answers = await Promise.all(
      seen.map((choice) => ask("v1/recommend", question(choice), mine.signal)));
    show(seen, answers, another, said);
    told("");
  } catch (error) {
    failed(error);
  }
  if (asked === mine) $("lists").setAttribute("aria-busy", "false");
}

function question(choice) {
  const body = { ...asker.question, n, explain: true, deadline_ms: DEADLINE_MS };
  if (categories.chosen.size) body.filter = { categories: [...categories.chosen] };
  if ($("diversity").valueAsNumber) body.diversity = $("diversity").valueAsNumber;
  if (choice?.dataset.field) body[choice.dataset.field] = choice.dataset.name;
  return body;
}

function show(choices, answers, another, said) {
  const before = another ? null : lists[0]?.ranks;
  if (lists.length !== answers.length) {
    const block = blocked.allowed ? (item) => blocked.block(item) : null;
    lists = answers.map((_, at) => lists[at] ?? new RankedList({ pick, block }));
    $("lists").replaceChildren(...lists.map((list) => list.element));
    $("lists").classList.toggle("two", lists.length > 1);
  }
  const [left, right] = answers;
  lists[0].show(label(choices[0]), left, right ? null : before);
  if (right) lists[1].show(label(choices[1]), right, lists[0].ranks, true);
  $("more").hidden = left.answer.items.length < n;
  $("said").textContent = [said, summary(left.answer, right?.answer)].filter(Boolean).join(" ");
}

function summary(left, right) {
  const whom = asker.user ? `for ${asker.user}` : asker.items.length ? "for this history" : "for somebody new";
  const count = `${left.items.length || "No"} items ${whom}`;
  if (!right) return `${count}.`;
  const here = new Set(left.items.map((item) => item.item_id));
  const both = right.items.filter((item) => here.has(item.item_id)).length;
  return `${count}, ${both} of them in both lists.`;
}

const label = (choice) => choice?.dataset.name ?? "As served";

// ---------------------------------------------------------------- acting

/** An item was clicked: an event of the user, or one more item of this page's history. */
async function pick(item, answer) {
  let said = `${named(item)} added.`;
  if (asker.user) {
    const act = { event_id: eventId(), user_id: asker.user, item_id: item.item_id, event: $("event").value };
    if (answer) act.request_id = answer.request_id; // which answer showed it
    try {
      await ask("v1/events", { events: [act] });
      asker.kept = true;
      said = `${named(item)}: ${act.event} sent.`;
    } catch (error) {
      if (![404, 503].includes(error.status)) return failed(error);
      asker.kept = false;
      said = `This event is not kept, it counts on this page alone: ${error.message}`;
    }
  }
  asker.add(item);
  await refresh({ said });
}

// ---------------------------------------------------------------- beginning

async function begin() {
  $("drop-key").hidden = !key.get();
  try {
    const { answer: served } = await ask("v1/release");
    describe(served);
    const { answer } = await ask("v1/categories");
    categories.offer(answer.categories);
    await blocked.begin();
    await Promise.all([asker.find(), refresh()]);
  } catch (error) {
    failed(error);
  }
}

function describe(served) {
  const made = served.created
    && `made ${new Date(served.created).toLocaleDateString(undefined, { dateStyle: "medium" })}`;
  $("served").textContent = [`Release ${served.release}`, served.family, made].filter(Boolean).join(" · ");
  asker.offer(served.example_users ?? []);
  const asks = served.variants.filter((one) => one.state === "serving" && one.role !== "shadow");
  const variants = ["default", ...asks.map((one) => one.name)].map((one) => option("variant", one));
  const models = served.recommenders.map((one) => option("model", one));
  for (const [select, first] of [[$("left"), "as served"], [$("right"), "nothing"]]) {
    const chosen = select.value;
    const groups = [["Variants", variants], ["Models", models]].map(
      ([name, options]) => el("optgroup", { label: name }, ...options.map((one) => one.cloneNode(true))));
    select.replaceChildren(new Option(first, ""), ...groups);
    select.value = chosen;
    if (select.selectedIndex < 0) select.value = "";
  }
}

const option = (field, name) =>
  el("option", { value: `${field} ${name}`, "data-field": field, "data-name": name }, name);

// ---------------------------------------------------------------- trouble

function told(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) throw error;
  if (error.status !== 401) return told(error.message);
  $("key-why").textContent = key.get()
    ? "The service does not take this API key." : "This service asks for an API key.";
  $("key-form").hidden = false;
  $("key").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  begin();
});
$("drop-key").addEventListener("click", () => {
  key.drop();
  location.reload(); // with all that the key had shown
});
$("diversity").addEventListener("input", () => {
  $("diversity-value").textContent = $("diversity").value;
});
$("diversity").addEventListener("input", calmly(() => refresh(), 120));
for (const select of [$("left"), $("right")]) {
  select.addEventListener("change", () => refresh({ another: true }));
}
$("more").addEventListener("click", () => {
  n += STEP;
  refresh();
});

// Open where they do not push the list away.
$("history-part").open = $("add").open = matchMedia("(min-width: 54rem)").matches;
begin();
