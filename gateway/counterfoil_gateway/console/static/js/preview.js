/** The beginning of a file, before it is sent: how its text is likely read, and its first rows. Ingest looks at the whole file and decides. */
import { h } from "./dom.js";
import { folded, json, nothing, table } from "./parts.js";

const LOOKED_AT = 64 * 1024; // bytes
const ROWS = 8;
const COLUMNS = 40;
const LONGEST = 200; // characters of a value that are shown

/** What the signs that separate values are called. */
export const DELIMITERS = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar" };
const FORMATS = { csv: "CSV", tsv: "CSV", txt: "CSV", jsonl: "JSONL", ndjson: "JSONL", json: "JSONL", parquet: "PARQUET" };

/** The format that a file's name tells, CSV when it tells none. */
export const formatOf = (name) => FORMATS[name.toLowerCase().replace(/\.gz$/, "").split(".").pop()] ?? "CSV";

/** What a file begins with. */
export async function preview(file, format) {
  if (!file.size) return nothing("The file is empty.");
  if (format === "PARQUET") return h("p", { class: "faint" }, "Parquet says itself what its columns are. They are read when the file is sent.");
  const bytes = await beginning(file);
  if (!bytes) return h("p", { class: "notice" }, "It begins as gzip and cannot be unpacked: it is cut off or damaged.");
  const { text, encoding } = decoded(bytes);
  if (text.includes("\0")) return h("p", { class: "notice" }, "This is no text. Of a workbook, save the sheet as CSV; of a ZIP archive, unpack the file that is in it.");
  return format === "CSV" ? csvView(text, encoding) : linesView(text);
}

/** The first bytes of a file, of an archive those of what is in it; null of a broken one. */
async function beginning(file) {
  const start = new Uint8Array(await file.slice(0, LOOKED_AT).arrayBuffer());
  if (start[0] !== 0x1f || start[1] !== 0x8b) return start;
  const reader = file.stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  try {
    return ((await reader.read()).value ?? new Uint8Array()).slice(0, LOOKED_AT);
  } catch {
    return null;
  } finally {
    reader.cancel().catch(() => {});
  }
}

function decoded(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return { encoding: "utf-16", text: new TextDecoder("utf-16le").decode(bytes) };
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return { encoding: "utf-16", text: new TextDecoder("utf-16be").decode(bytes) };
  try {
    return { encoding: "utf-8", text: new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true }) };
  } catch {
    return { encoding: "a code page of one byte", text: new TextDecoder("windows-1252").decode(bytes) };
  }
}

function csvView(text, encoding) {
  const [header] = cells(text, ",", 1).length ? text.split(/\r?\n/, 1) : [""];
  const delimiter = Object.keys(DELIMITERS).reduce((best, each) => (header.split(each).length > header.split(best).length ? each : best));
  const [names = [], ...rows] = cells(text, delimiter, ROWS + 1);
  const columns = names.slice(0, COLUMNS).map((name, index) => ({ label: name || "—", cell: (row) => short(row[index] ?? "") }));
  return h(
    "div",
    { class: "stack" },
    h("p", { class: "faint" }, `Likely ${encoding}, its values separated by a ${DELIMITERS[delimiter]}${names.length > COLUMNS ? `; the first ${COLUMNS} of ${names.length} columns` : ""}. The import says how it was read; a header further down, as vendors write it, is found then.`),
    table(columns, rows, { caption: "First rows", dense: true, empty: nothing("There is a header, and no row below it.") }),
  );
}

/** Rows of RFC 4180, at most so many; one that is cut off at the end is left out. */
function cells(text, delimiter, most) {
  const rows = [];
  let [row, cell, quoted] = [[], "", false];
  for (let at = text.charCodeAt(0) === 0xfeff ? 1 : 0; at < text.length && rows.length < most; at += 1) {
    const sign = text[at];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[at + 1] === '"') (cell += sign), (at += 1);
      else quoted = false;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === delimiter) row.push(cell), (cell = "");
    else if (sign === "\n") rows.push([...row, cell.replace(/\r$/, "")]), ([row, cell] = [[], ""]);
    else cell += sign;
  }
  if (rows.length < most && (row.length || cell)) rows.push([...row, cell]);
  return rows;
}

const short = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

function linesView(text) {
  const lines = text.split("\n").filter((line) => line.trim()).slice(0, ROWS);
  const [first = ""] = lines;
  if (first.trimStart().startsWith("[")) return h("p", { class: "notice" }, "It begins with a list. JSON lines have one object in each line, and no list around them.");
  return h("div", { class: "stack" }, json(first), lines.length > 1 && folded(`The next lines (${lines.length - 1})`, () => lines.slice(1).map((line) => h("pre", { class: "json" }, short(line)))));
}
