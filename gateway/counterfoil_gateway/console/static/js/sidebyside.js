/** Two documents beside each other: what changed in colour and with a sign, what both have folded away but for a few lines around it. */
import { compareLines } from "./diff.js";
import { fill, h } from "./dom.js";
import { plural } from "./format.js";

const AROUND = 3; // equal lines shown before and after a change
const SHORTEST_FOLD = 4;
const AT_ONCE = 2_000; // rows drawn before one has to ask for more

/** `left` and `right` are `{title, text}`. */
export function sideBySide(left, right) {
  const lines = [left.text.split("\n"), right.text.split("\n")];
  const rows = aligned(compareLines(left.text, right.text));
  const changed = rows.filter((row) => !row.same).length;
  if (!changed) return h("p", { class: "faint" }, "The two documents are the same, letter by letter.");
  const body = h("tbody");
  draw(body, folds(rows), lines, AT_ONCE);
  return h(
    "div",
    { class: "table-frame", role: "region", "aria-label": "The two documents side by side", tabindex: "0" },
    h(
      "table",
      { class: "beside" },
      h("caption", { class: "visually-hidden" }, "The two documents side by side"),
      h("colgroup", {}, ["number", "text", "number", "text"].map((kind) => h("col", { class: kind }))),
      h("thead", {}, h("tr", {}, h("th", { scope: "col", colspan: "2" }, left.title), h("th", { scope: "col", colspan: "2" }, right.title, h("span", { class: "faint" }, ` · ${plural(changed, "line differs", "lines differ")}`)))),
      body,
    ),
  );
}

/** Put lines taken away and lines added in the same place next to each other. */
function aligned(pairs) {
  const rows = [];
  let [gone, come] = [[], []];
  const flush = () => {
    for (let index = 0; index < Math.max(gone.length, come.length); index += 1) rows.push({ left: gone[index] ?? null, right: come[index] ?? null, same: false });
    [gone, come] = [[], []];
  };
  for (const { left, right } of pairs) {
    if (left !== null && right !== null) {
      flush();
      rows.push({ left, right, same: true });
    } else if (left !== null) gone.push(left);
    else come.push(right);
  }
  flush();
  return rows;
}

/** Rows to show, with runs of equal ones as `{hidden: rows}` where that is shorter. */
function folds(rows) {
  const near = new Uint8Array(rows.length);
  rows.forEach((row, index) => row.same || near.fill(1, Math.max(0, index - AROUND), index + AROUND + 1));
  for (let begin = 0, end; begin < rows.length; begin = end + 1) {
    end = near.indexOf(1, begin);
    if (end < 0) end = rows.length;
    if (end - begin < SHORTEST_FOLD) near.fill(1, begin, end);
  }
  const shown = [];
  rows.forEach((row, index) => {
    const last = shown.at(-1);
    if (near[index]) shown.push(row);
    else if (last?.hidden) last.hidden.push(row);
    else shown.push({ hidden: [row] });
  });
  return shown;
}

function draw(body, rows, lines, limit) {
  fill(
    body,
    rows.slice(0, limit).map((row) => (row.hidden ? foldedRow(row.hidden, lines) : line(row, lines))),
    rows.length > limit && button(`Show ${plural(rows.length - limit, "more row")}`, () => draw(body, rows, lines, rows.length)),
  );
}

function foldedRow(hidden, lines) {
  const row = button(`Show ${plural(hidden.length, "equal line")}`, () => {
    const opened = hidden.map((one) => line(one, lines));
    row.replaceWith(...opened);
    opened[0].setAttribute("tabindex", "-1");
    opened[0].focus({ preventScroll: true });
  });
  return row;
}

const button = (text, onclick) => h("tr", { class: "folded" }, h("td", { colspan: "4" }, h("button", { type: "button", class: "plain-button", onclick }, text)));

function line({ left, right, same }, lines) {
  const texts = [left === null ? null : lines[0][left - 1], right === null ? null : lines[1][right - 1]];
  const marked = same || left === null || right === null ? texts : marks(...texts);
  return h("tr", {}, half(left, marked[0], same ? "" : "gone"), half(right, marked[1], same ? "" : "come"));
}

const SIGNS = { gone: ["−", "taken away: "], come: ["+", "added: "] };

function half(number, text, kind) {
  if (number === null) return [h("td", { class: "line-number" }), h("td", { class: "absent" })];
  const [sign, aloud] = SIGNS[kind] ?? ["", ""];
  return [
    h("td", { class: `line-number ${kind}` }, number, sign && h("span", { class: "sign", "aria-hidden": "true" }, sign)),
    h("td", { class: kind || null }, aloud && h("span", { class: "visually-hidden" }, aloud), h("code", {}, text)),
  ];
}

/** Two lines of which the middle is marked where they differ. */
function marks(a, b) {
  let head = 0;
  while (head < Math.min(a.length, b.length) && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const mark = (text) => [text.slice(0, head), text.length > head + tail && h("mark", {}, text.slice(head, text.length - tail)), text.slice(text.length - tail)];
  return head + tail === 0 ? [a, b] : [mark(a), mark(b)];
}
