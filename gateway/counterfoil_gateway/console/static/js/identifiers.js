/** Identifiers of persons as chips: the type, then the value. */
import { h } from "./dom.js";

export const chip = ({ type, value }, { shared = false } = {}) =>
  h("span", { class: shared ? "chip shared" : "chip", title: shared ? `${type} ${value}: shared by too many to join anybody` : `${type} ${value}` }, h("span", { class: "kind" }, type), h("span", { class: "value" }, value));

/** Several, and how many are not shown. */
export function chips(identifiers, { limit = 100 } = {}) {
  const rest = identifiers.length - limit;
  return h("span", { class: "chips" }, identifiers.slice(0, limit).map(({ identifier, shared }) => chip(identifier, { shared })), rest > 0 && h("span", { class: "faint" }, `+${rest}`));
}

export const personPath = (id) => `/console/customers/${encodeURIComponent(id)}`;
