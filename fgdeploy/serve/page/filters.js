// The filters: from the form to parameters of the service.

import { byId } from "./elements.js";

const ZONED = (text) => (text === "" ? "" : new Date(text).toISOString());

// Parameters of a search or a list; null where the form holds what is none, which it then says.
export function chosen() {
  if (!byId("filters").reportValidity()) return null;
  return {
    label: byId("label").value,
    since: ZONED(byId("since").value),
    until: ZONED(byId("until").value),
    where: byId("where-field").hidden ? "" : byId("where").value,
  };
}

export const most = () => byId("k").value;

export const radius = () => byId("radius").value;

export const any = (filters) => Object.values(filters).some((value) => value !== "");

export function offer({ counts, more }) {
  const options = counts.map(({ label, items }) => {
    const option = document.createElement("option");
    option.value = label;
    option.label = `${label} (${items})`;
    return option;
  });
  byId("labels").replaceChildren(...options);
  byId("label").placeholder = more ? "any of many" : `any of ${counts.length}`;
}
