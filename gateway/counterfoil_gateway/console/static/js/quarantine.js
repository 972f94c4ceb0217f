/** Quarantine as several pages show it: its addresses, states, findings, and a record with the places that are at fault. */
import { segment } from "./api.js";
import { h } from "./dom.js";
import { badgeOf } from "./parts.js";

const MOST_LINES = 2_000;

/** The address of the quarantine, or of those records in it that have all of these. */
export const quarantinePath = (of = {}) => `/console/sources/quarantine${Object.keys(of).length ? `?${new URLSearchParams(of)}` : ""}`;

/** The address of one record. */
export const quarantinedPath = (id) => `/console/sources/quarantine/${segment(id)}`;

const STATES = { OPEN: ["open", "warn"], REPLAYED: ["in the log", "good"], DISCARDED: ["set aside", "plain"] };

/** What became of a record. */
export const quarantineBadge = (state) => badgeOf(STATES, state);

/** Findings of a record, at most so many: what is wrong, where, and the rule. */
export const faultList = (findings, most = Infinity) =>
  h(
    "ul",
    { class: "faults" },
    findings.slice(0, most).map((one) => h("li", {}, one.detail, " ", h("code", { class: "faint" }, `${one.reason} ${one.path}`))),
    findings.length > most && h("li", { class: "faint" }, `and ${findings.length - most} more`),
  );

const ROW = /^([0-9a-f]{8})[0-9a-f]{56}#(\d+)$/;

/** What a record is called: of an imported file, its row. */
export function recordName(id) {
  const [, file, row] = ROW.exec(id) ?? [];
  return row ? `row ${row} of file ${file}…` : id || "without id";
}

/** JSON, indented; lines at which a finding lies are marked, one about what is not there at what should hold it. */
export function marked(value, findings) {
  const lines = [];
  write(lines, value, { path: "$", lead: "", before: "", after: "" });
  const known = new Set(lines.map((line) => line.path));
  const at = new Map();
  for (const one of findings) {
    let path = normal(one.path);
    while (path !== "$" && !known.has(path)) path = path.replace(/(\.[^.[\]]*|\["(?:[^"\\]|\\.)*"\]|\[\d*\])$/, "") || "$";
    at.set(path, at.has(path) ? `${at.get(path)}\n${one.detail}` : one.detail);
  }
  return h(
    "pre",
    { class: "json marked", tabindex: "0" },
    lines.slice(0, MOST_LINES).map(({ text, path, first }) => {
      const told = first && at.get(path);
      return told ? h("mark", { title: told }, `${text}\n`) : `${text}\n`;
    }),
    lines.length > MOST_LINES && h("span", { class: "faint" }, `${lines.length - MOST_LINES} more lines`),
  );
}

const PLAIN = /^[A-Za-z_][A-Za-z0-9_]*$/;
const child = (path, key) => (PLAIN.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`);

/** A path as `child` writes it, whichever quotes it has. */
const normal = (path) => path.replace(/\['((?:[^'\\]|\\.)*)'\]/g, (_, key) => child("", key.replace(/\\'/g, "'"))) || "$";

function write(lines, value, { path, lead, before, after }) {
  if (lines.length > MOST_LINES) return;
  const list = Array.isArray(value);
  const entries = list ? value.map((each, index) => [index, each]) : value && typeof value === "object" ? Object.entries(value) : null;
  if (!entries?.length) {
    lines.push({ text: `${lead}${before}${entries ? (list ? "[]" : "{}") : JSON.stringify(value)}${after}`, path, first: true });
    return;
  }
  lines.push({ text: `${lead}${before}${list ? "[" : "{"}`, path, first: true });
  entries.forEach(([key, each], index) =>
    write(lines, each, { path: list ? `${path}[${key}]` : child(path, key), lead: `${lead}  `, before: list ? "" : `${JSON.stringify(key)}: `, after: index < entries.length - 1 ? "," : "" }),
  );
  lines.push({ text: `${lead}${list ? "]" : "}"}${after}`, path, first: false });
}

/** Bytes in base64 as text, or in hexadecimal where they are none; of those that were `cut` off, the last sign may be incomplete. */
export function bytesOf(base64, { cut }) {
  const bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: cut });
  } catch {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  }
}
