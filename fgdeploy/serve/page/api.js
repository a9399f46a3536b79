// Requests to the service that sent this page, with the key if it asks for one.

const KEPT = "fgdeploy-key";
const ROOT = new URL("./", document.baseURI);

let key = sessionStorage.getItem(KEPT);
let askForKey = null;

export class Refused extends Error {
  constructor(words, status, kind, retry = 0) {
    super(words);
    Object.assign(this, { status, kind, retry });
  }
}

export const hasKey = () => key !== null;

export function onKeyNeeded(handler) {
  askForKey = handler;
}

export function useKey(text) {
  key = text;
  if (text === null) sessionStorage.removeItem(KEPT);
  else sessionStorage.setItem(KEPT, text);
}

export function address(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

// Send one request. Answers {body, times, took}: JSON, ms by stage, ms seen here.
export async function ask(method, path, { query, image, json, signal } = {}) {
  const start = performance.now();
  const answer = await send(method, address(path, query), contents(image, json), signal);
  const body = await jsonOf(answer);
  const times = timesOf(answer.headers.get("server-timing") ?? "");
  return { body, times, took: performance.now() - start };
}

export async function picture(path, query, signal) {
  return (await send("GET", address(path, query), {}, signal)).blob();
}

function contents(image, json) {
  if (image) {
    const kind = image.type.startsWith("image/") ? image.type : "application/octet-stream";
    return { body: image, headers: { "Content-Type": kind } };
  }
  if (json) return { body: JSON.stringify(json), headers: { "Content-Type": "application/json" } };
  return {};
}

async function send(method, url, { body, headers }, signal) {
  for (;;) {
    const used = key;
    const keyed = used === null ? {} : { "X-API-Key": used };
    let answer;
    try {
      answer = await fetch(url, { method, body, headers: { ...headers, ...keyed }, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The service cannot be reached; is it still running?", 0, "network");
    }
    if (answer.ok) return answer;
    const refused = await refusalOf(answer);
    if (refused.kind !== "api_key") throw refused;
    if (key === used && !(await askForKey(used !== null))) throw refused;
  }
}

async function jsonOf(answer) {
  try {
    return await answer.json();
  } catch {
    throw new Refused("The service sent an answer that cannot be read.", answer.status, "answer");
  }
}

async function refusalOf(answer) {
  const retry = Number(answer.headers.get("retry-after")) || 0;
  try {
    const { error, kind } = await answer.json();
    return new Refused(String(error), answer.status, String(kind), retry);
  } catch {
    return new Refused(`The service answered ${answer.status}.`, answer.status, "answer", retry);
  }
}

function timesOf(header) {
  const times = {};
  for (const part of header.split(",")) {
    const found = /^\s*([a-z]+);dur=([0-9.]+)\s*$/.exec(part);
    if (found) times[found[1]] = Number(found[2]);
  }
  return times;
}
