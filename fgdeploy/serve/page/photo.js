// The photo that is asked with: shown on a canvas, and what the network kept laid over it.

import { ask } from "./api.js";
import { byId, make } from "./elements.js";

const SIDE = 448;
let views = null; // of the photo that is shown
let shown = null;

export async function show(file) {
  shown = file;
  views = null;
  byId("explain").checked = false;
  byId("views").hidden = true;
  byId("overlay").hidden = true;
  byId("legend").textContent = byId("legend").dataset.none ?? "";
  byId("query").hidden = false;
  byId("query-name").textContent = file.name || "pasted photo";
  const canvas = byId("photo");
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, SIDE, SIDE);
  canvas.setAttribute("aria-label", `Your photo, ${file.name || "pasted"}`);
  try {
    const photo = await createImageBitmap(file);
    if (shown !== file) return;
    const scale = Math.min(SIDE / photo.width, SIDE / photo.height);
    const [width, height] = [photo.width * scale, photo.height * scale];
    pen.drawImage(photo, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    photo.close();
  } catch {
    pen.fillStyle = getComputedStyle(canvas).color;
    pen.font = "24px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.fillText("no preview of this kind", SIDE / 2, SIDE / 2);
  }
}

export function hide() {
  shown = null;
  byId("query").hidden = true;
}

// Lay over the photo what the network kept, or take it away.
export async function explain(on) {
  if (!on || shown === null) {
    byId("views").hidden = true;
    byId("overlay").hidden = true;
    byId("legend").textContent = "";
    return;
  }
  const file = shown;
  if (views === null) {
    byId("legend").textContent = "Asking the network…";
    const { body } = await ask("POST", "explain", { image: file });
    if (shown !== file) return;
    views = body;
  }
  const select = byId("view");
  const options = views.panels.map(({ caption }, place) =>
    make("option", { value: place }, place === 0 ? "photo as the network sees it" : caption),
  );
  select.replaceChildren(...options);
  select.value = String(Math.min(1, options.length - 1));
  byId("views").hidden = false;
  byId("legend").textContent = views.legend;
  look();
}

export function look() {
  const panel = views?.panels[Number(byId("view").value)];
  const overlay = byId("overlay");
  if (!panel || !panel.picture.startsWith("data:image/jpeg;base64,")) return;
  overlay.src = panel.picture;
  overlay.alt = `Your photo, ${panel.caption}`;
  overlay.hidden = false;
}
