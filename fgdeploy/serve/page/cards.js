// Items as cards: thumbnail, distance, label, id, time; and what can be done with each.

import { picture, address, hasKey, Refused } from "./api.js";
import { foreign, localTime, make } from "./elements.js";

const SIDE = 160;
const held = new Set(); // blob addresses to free

// Pictures that need the key are fetched when they come near the window.
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      void fetchPicture(target);
    }
  },
  { rootMargin: "400px" },
);

export function show(list, items, { like, remove }) {
  near.disconnect();
  for (const url of held) URL.revokeObjectURL(url);
  held.clear();
  list.replaceChildren(...items.map((item) => card(item, like, remove)));
}

function card(item, like, remove) {
  const distance = item.distance;
  const title = foreign(item.label ?? "no label", { class: item.label === null ? "label none" : "label" });
  const path = item.path === null ? null : foreign(item.path, { class: "path", title: item.path });
  const actions = make("div", { class: "actions" });
  const likeIt = make("button", { type: "button", class: "plain like", "aria-label": `Like this, item ${item.id}` }, "Like this");
  const removeIt = make("button", { type: "button", class: "plain remove", "aria-label": `Remove item ${item.id}` }, "Remove");
  likeIt.addEventListener("click", () => like(item));
  removeIt.addEventListener("click", () => remove(item));
  actions.append(likeIt, removeIt);
  return make(
    "li",
    { class: "card", "data-id": item.id },
    thumbnail(item),
    distance === undefined
      ? null
      : make("p", { class: "distance" }, String(distance), make("span", {}, distance === 1 ? " bit" : " bits")),
    make("p", { class: "what" }, title),
    path === null ? null : make("p", { class: "where" }, path),
    make("p", { class: "facts" }, `id ${item.id}`, item.time ? " · " : "", item.time ? localTime(item.time) : ""),
    actions,
  );
}

function thumbnail(item) {
  const box = make("div", { class: "thumbnail" });
  if (!item.thumbnail) {
    box.append(make("span", { class: "gone" }, "no thumbnail"));
    return box;
  }
  const label = item.label ?? "no label";
  const image = make("img", { alt: `Item ${item.id}, ${label}`, width: SIDE, height: SIDE, loading: "lazy", decoding: "async" });
  const query = { sha256: item.sha256 };
  image.addEventListener("error", () => gone(box));
  if (hasKey()) {
    Object.assign(image, { wanted: { path: `items/${item.id}/thumbnail`, query } });
    near.observe(image);
  } else {
    image.src = address(`items/${item.id}/thumbnail`, query);
  }
  box.append(image);
  return box;
}

async function fetchPicture(image) {
  try {
    const url = URL.createObjectURL(await picture(image.wanted.path, image.wanted.query));
    held.add(url);
    image.src = url;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (image.parentElement) gone(image.parentElement);
  }
}

function gone(box) {
  box.replaceChildren(make("span", { class: "gone" }, "no thumbnail"));
}
