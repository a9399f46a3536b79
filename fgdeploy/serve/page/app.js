// The page: what is shown, and what happens at each press.

import { ask, onKeyNeeded, Refused, useKey } from "./api.js";
import * as cards from "./cards.js";
import { byId, counted, facts, foreign, make, number } from "./elements.js";
import * as filters from "./filters.js";
import * as photo from "./photo.js";

const STAGES = { decode: "Decode", queue: "Queue", inference: "Inference", search: "Search", total: "Service" };
const READY_MS = 5000;
const NARROW = matchMedia("(max-width: 899px)"); // as in style.css

let about = null;
let asked = { by: "all" }; // {by: "photo", file} or {by: "item", item}
let pages = [-1]; // the `after` of each page up to the one that is shown
let running = null;
let repeat = null; // what "Try again" does

// Starting

async function start() {
  try {
    about = (await ask("GET", "about")).body;
  } catch (error) {
    tellState("Not connected", "down");
    throw error;
  }
  offer();
  await Promise.all([readiness(), labels(), run()]);
}

function offer() {
  byId("where-field").hidden = !about.where;
  byId("kept").hidden = true;
  const none = about.unexplained === null ? "" : `Not shown here: ${about.unexplained}.`;
  byId("explain").disabled = about.unexplained !== null;
  byId("legend").dataset.none = none;
  byId("legend").textContent = none;
  if (about.index) return;
  byId("filters").hidden = true;
  byId("results-title").textContent = "No gallery";
}

async function readiness() {
  try {
    const { body } = await ask("GET", "readyz");
    tellState("Ready", "ready");
    const items = body.items === null ? [] : [["Items", number(body.items)]];
    const model = `${about.method}, ${counted(about.bits, "bit")}`;
    facts(byId("facts"), [...items, ["Model", model, body.model], ["Engine", body.engine]]);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tellState(`Not ready: ${error.message}`, "down");
    setTimeout(() => void readiness(), READY_MS);
  }
}

async function labels() {
  if (!about.index) return;
  const { body } = await ask("GET", "labels");
  filters.offer({ counts: body.labels, more: body.more });
}

// What is shown

async function run() {
  running?.abort();
  const mine = (running = new AbortController());
  byId("enrol").hidden = asked.by !== "photo" || !about?.index;
  byId("kept").hidden = asked.by !== "photo";
  byId("radius").disabled = asked.by === "all";
  if (asked.by !== "photo") photo.hide();
  say("");
  busy(true);
  try {
    await (about.index ? find(mine.signal) : hash(mine.signal));
    quiet();
  } catch (error) {
    if (error.name === "AbortError") return;
    draw([]); // answers to another question would mislead
    byId("pages").hidden = true;
    throw error;
  } finally {
    if (running === mine) busy(false);
  }
}

async function find(signal) {
  const chosen = filters.chosen();
  if (chosen === null) return;
  if (asked.by === "all") {
    const query = { ...chosen, limit: filters.most(), after: pages.at(-1), full: true };
    const { body } = await ask("GET", "items", { query, signal });
    listed(body, filters.any(chosen));
    return;
  }
  const query = { ...chosen, k: filters.most(), radius: filters.radius(), full: true };
  const what = asked.by === "photo" ? { image: asked.file } : { json: { id: asked.item.id } };
  found(await ask("POST", "search", { ...what, query, signal }));
}

async function hash(signal) {
  if (asked.by !== "photo") {
    byId("empty").textContent = "The service has no index; photos are hashed only.";
    byId("empty").hidden = false;
    return;
  }
  const answer = await ask("POST", "hash", { image: asked.file, signal });
  times(answer);
  byId("results-title").textContent = "Its code";
  byId("empty").replaceChildren(make("code", {}, answer.body.code));
  byId("empty").hidden = false;
  say(`A code of ${counted(answer.body.bits, "bit")}.`);
}

function listed(body, filtered) {
  byId("results-title").textContent = filtered ? "Items that pass" : "All items";
  byId("times").hidden = true;
  draw(body.items);
  const first = pages.length === 1;
  byId("pages").hidden = first && body.next === null;
  byId("back").disabled = first;
  byId("on").disabled = body.next === null;
  byId("on").dataset.after = body.next ?? "";
  byId("page-words").textContent = `Page ${pages.length}`;
  const none = filtered ? "No item passes these filters." : "The gallery is empty. Choose a photo and add it.";
  nothing(first ? none : "No more items.", body.items.length);
  const ids = body.items.map((item) => item.id);
  say(ids.length ? `${counted(ids.length, "item")}, id ${ids[0]} to ${ids.at(-1)}.` : "No items.");
}

function found(answer) {
  const { hits, complete } = answer.body;
  const title = byId("results-title");
  if (asked.by === "photo") title.textContent = "Like your photo";
  else title.replaceChildren(`Like item ${asked.item.id}`, ...(asked.item.label === null ? [] : [", ", foreign(asked.item.label)]));
  byId("pages").hidden = true;
  times(answer);
  draw(hits);
  nothing("No item is within these filters.", hits.length);
  const all = complete === undefined ? "" : complete ? " These are all within the radius." : " There are more within the radius.";
  const reach = hits.length ? `, ${number(hits[0].distance)} to ${counted(hits.at(-1).distance, "bit")} away.${all}` : "";
  say(hits.length ? counted(hits.length, "result") + reach : "No results.");
}

function draw(items) {
  cards.show(byId("cards"), items, { like: likeItem, remove: removeItem });
}

function nothing(words, count) {
  byId("empty").textContent = words;
  byId("empty").hidden = count > 0;
}

function times({ times: stages, took }) {
  const named = Object.entries(STAGES).filter(([name]) => name in stages);
  const pairs = named.map(([name, said]) => [said, `${stages[name].toFixed(1)} ms`]);
  facts(byId("times"), [...pairs, ["Seen here", `${took.toFixed(1)} ms`]]);
  byId("times").hidden = false;
}

// What can be done

function takePhoto(file) {
  if (!file || about === null) return;
  if (file.size > about.upload_bytes) {
    trouble(`${file.name} has ${number(file.size)} bytes; the service takes ${number(about.upload_bytes)} at most.`);
    return;
  }
  asked = { by: "photo", file };
  void photo.show(file);
  void attempt(run).then((done) => {
    if (done && NARROW.matches) byId("results").scrollIntoView(); // they lie below the photo
  });
}

function likeItem(item) {
  asked = { by: "item", item };
  byId("results").focus();
  void attempt(run);
}

function showAll() {
  asked = { by: "all" };
  pages = [-1];
  byId("file").value = "";
  void attempt(run);
}

async function removeItem(item) {
  const dialog = byId("removing");
  const label = item.label === null ? [] : [", ", foreign(item.label)];
  byId("removing-words").replaceChildren(`Item ${item.id}`, ...label);
  if ((await answerOf(dialog)) !== "remove") return;
  await attempt(async () => {
    await ask("DELETE", `items/${item.id}`);
    const card = byId("cards").querySelector(`[data-id="${item.id}"]`);
    const next = card?.nextElementSibling ?? card?.previousElementSibling;
    card?.remove();
    (next?.querySelector(".remove") ?? byId("results")).focus();
    nothing("Nothing is left here.", byId("cards").children.length);
    say(`Item ${item.id} was removed.`);
    await Promise.all([readiness(), labels()]);
  }, null);
}

async function addPhoto(event) {
  event.preventDefault();
  if (asked.by !== "photo") return;
  const button = byId("enrol").querySelector("button");
  button.disabled = true;
  const query = { label: byId("new-label").value, uri: byId("new-uri").value };
  await attempt(async () => {
    const { body } = await ask("POST", "items", { image: asked.file, query });
    await Promise.all([run(), readiness(), labels()]);
    const words = { new: "was added", changed: "was changed", known: "was there already" };
    say(`Item ${body.item.id} ${words[body.status]}. ${byId("said").textContent}`);
  }, null);
  button.disabled = false;
}

function toggleKept() {
  void attempt(() => photo.explain(byId("explain").checked), null).then((done) => {
    if (!done) byId("explain").checked = false;
    if (!done) byId("legend").textContent = "";
  });
}

// Telling

function tellState(words, kind) {
  byId("state").textContent = words;
  byId("state").dataset.state = kind;
}

function say(words) {
  byId("said").textContent = words;
}

function busy(on) {
  byId("results").setAttribute("aria-busy", String(on));
}

function trouble(words, again = null) {
  repeat = again;
  byId("again").hidden = again === null;
  byId("trouble").hidden = false;
  byId("trouble-words").textContent = words;
}

function quiet() {
  byId("trouble").hidden = true;
}

// Do something that the service may refuse; say so, and offer to do it again where that can help.
async function attempt(action, again = undefined) {
  try {
    await action();
    return true;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const later = [0, 401, 408, 429, 503].includes(error.status);
    const redo = again === undefined ? () => attempt(action) : again;
    trouble(sentence(error.message), later ? redo : null);
    return false;
  }
}

function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.?!]$/.test(words) ? "" : "."}`;
}

// Dialogs

function answerOf(dialog) {
  dialog.showModal();
  return new Promise((done) => {
    const listening = new AbortController();
    const answer = (value) => {
      listening.abort();
      done(value);
    };
    // Not "close": it comes late, and would answer for a dialog that was opened again meanwhile.
    const { signal } = listening;
    dialog.addEventListener("submit", (event) => answer(event.submitter?.value ?? ""), { signal });
    dialog.addEventListener("cancel", () => answer(""), { signal });
  });
}

let asking = null; // one dialog, however many requests wait for the key

function askKey(wrong) {
  asking ??= (async () => {
    const words = "This service asks for its key. It stays in this tab until you close it.";
    byId("key-words").textContent = wrong ? "That is not the service's key." : words;
    byId("key").value = "";
    const used = (await answerOf(byId("asking-key"))) === "use";
    useKey(used ? byId("key").value.trim() : null);
    byId("key").value = "";
    asking = null;
    return used;
  })();
  return asking;
}

// Wiring

function wire() {
  byId("file").addEventListener("change", (event) => takePhoto(event.target.files[0]));
  byId("clear").addEventListener("click", () => {
    showAll();
    byId("file").focus();
  });
  byId("enrol").addEventListener("submit", (event) => void addPhoto(event));
  byId("explain").addEventListener("change", toggleKept);
  byId("view").addEventListener("change", photo.look);
  byId("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    pages = [-1];
    void attempt(run);
  });
  byId("filters").addEventListener("reset", () => {
    pages = [-1];
    setTimeout(() => void attempt(run)); // when the fields are empty
  });
  byId("on").addEventListener("click", () => turn([...pages, Number(byId("on").dataset.after)]));
  byId("back").addEventListener("click", () => turn(pages.slice(0, -1)));
  byId("again").addEventListener("click", () => {
    quiet();
    void repeat?.();
  });
  byId("trouble-close").addEventListener("click", quiet);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=file], [type=checkbox]), select");
    if (event.key !== "Escape" || typing || document.querySelector("dialog[open]")) return;
    if (!byId("trouble").hidden) quiet();
    else if (asked.by !== "all") showAll();
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) takePhoto(file);
  });
  wireDrop();
}

function turn(next) {
  pages = next;
  byId("results").focus();
  void attempt(run);
}

function wireDrop() {
  const over = (on) => document.body.classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) over(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    takePhoto(event.dataTransfer.files[0]);
  });
}

onKeyNeeded(askKey);
wire();
void attempt(start);
