// Making elements. Text is set as text, never as markup: labels and paths are anybody's.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Text of others, whose direction must not turn what stands around it.
// Lines may break behind what joins words in names and paths.
export function foreign(text, attributes = {}) {
  const parts = text.split(/(?<=[_/.])/);
  return make("bdi", attributes, ...parts.flatMap((part, place) => (place ? [make("wbr"), part] : [part])));
}

export function facts(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([name, value, whole]) =>
      make("div", {}, make("dt", {}, name), make("dd", { title: whole ?? null }, value)),
    ),
  );
}

export const number = (value) => Number(value).toLocaleString("en");

export const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

export function localTime(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return foreign(text);
  const shown = time.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return make("time", { datetime: text, title: text }, shown);
}
