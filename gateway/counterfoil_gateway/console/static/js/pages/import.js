/** One import: how far it is, what became of its rows, how the file was read, and taking it back. */
import { get, post, segment } from "../api.js";
import { pause } from "../checks.js";
import { datasetPath } from "../datasets.js";
import { announce, fill, h } from "../dom.js";
import { deed, missing } from "../forms.js";
import { count, plural, size } from "../format.js";
import { importBadge, moving } from "../imports.js";
import { at, card, facts, figure, folded, hash, heading, json, nothing, pending, problemBox } from "../parts.js";
import { DELIMITERS } from "../preview.js";
import { quarantinePath } from "../quarantine.js";
import { session } from "../session.js";

const EVERY = 700; // milliseconds, while it moves

export function imported({ import_id: id, signal }) {
  const path = `/v1/imports/${segment(id)}`;
  return h(
    "div",
    { class: "stack" },
    heading("Import", { crumb: ["Imports", "/console/sources/imports"] }),
    pending(async () => ({ it: await get(path, {}, signal), scopes: (await session()).scopes }), ({ it, scopes }) => watched(it, { path, scopes, signal }), {
      height: 420,
      gone: () => nothing("There is no such import.", { hint: h("a", { href: "/console/sources/imports" }, "Show the imports") }),
    }),
  );
}

/** Shown anew for as long as something is done with it. */
function watched(first, { path, scopes, signal }) {
  const place = h("div", { class: "stack" });
  const draw = (it) => fill(place, view(it, { path, scopes, again: follow }));
  async function follow(begun) {
    draw(begun);
    try {
      let it = begun;
      while (moving(it)) {
        await pause(EVERY, signal);
        it = await get(path, {}, signal);
        draw(it);
      }
      if (it !== begun) announce(`The import has ended: ${it.state.toLowerCase()}`);
    } catch (error) {
      if (error.name !== "AbortError") place.append(problemBox(error, { retry: () => follow(begun) }));
    }
  }
  follow(first);
  return place;
}

function view(it, { path, scopes, again }) {
  return [
    h("p", { class: "verdict" }, it.file_name || "without a name", " ", importBadge(it.state)),
    moving(it) && h("progress", { class: "whole", "aria-label": "Rows that have a verdict", ...(it.rows_total ? { max: it.rows_total, value: it.rows_read } : {}) }),
    it.error && h("div", { class: "problem", role: "alert" }, h("p", { class: "problem-title" }, "It could not be read to its end"), h("p", {}, it.error.detail), h("code", {}, it.error.reason)),
    h(
      "div",
      { class: "figures" },
      figure("Rows", it.rows_total ? count(it.rows_total) : "not known yet", { sub: `${count(it.rows_read)} with a verdict` }),
      figure("Accepted", count(it.rows_accepted), { sub: it.state === "REVERTED" ? "then; none of them is left" : "in the log" }),
      figure("There before", count(it.rows_duplicate), { sub: "added nothing" }),
      figure("Quarantined", it.rows_quarantined && it.state !== "REVERTED" ? h("a", { href: quarantinePath({ import_id: it.import_id }) }, count(it.rows_quarantined)) : count(it.rows_quarantined), { sub: "with bytes and reason", kind: it.rows_quarantined ? "warn" : "" }),
    ),
    h(
      "div",
      { class: "grid" },
      card("The file", facts([
        ["Dataset", it.dataset ? h("a", { href: datasetPath(it.dataset) }, h("code", {}, it.dataset)) : "one per stream"],
        ["Format", it.format],
        ["Size", size(it.file_bytes)],
        ["SHA-256", hash(it.file_sha256, 24)],
        ["Read as", it.mapping || "rows are records as they are"],
        ["Told", it.parameter.length ? it.parameter.map((each) => h("div", {}, h("code", {}, each))) : null],
        ["Text", it.csv && dialect(it.csv)],
        ["Connection", it.connection],
        ["Sent", h("span", {}, at(it.created_at), ` by ${it.created_by}`)],
        ["Ended", it.finished_at && at(it.finished_at)],
      ]), { span: 7 }),
      card("Take it back", reverting(it, { path, may: scopes.includes("ingest.write"), again }), { span: 5, note: "Its records leave the log and the lake, and what it put into quarantine goes with them." }),
    ),
    it.source_state && card(null, folded("Where its source continues", () => json(it.source_state))),
  ];
}

const dialect = ({ encoding, delimiter, quote, header_line: line }) =>
  `${encoding}, separated by ${DELIMITERS[delimiter] ?? JSON.stringify(delimiter)}${quote ? `, quoted by ${quote}` : ""}, header in line ${line}`;

function reverting(it, { path, may, again }) {
  if (it.revert) {
    return facts([
      ["Why", it.revert.reason],
      ["Asked", h("span", {}, at(it.revert.reverted_at), ` by ${it.revert.reverted_by}`)],
      ["Records", `${count(it.revert.records)} taken out of the log`],
      ["Quarantined", plural(it.revert.quarantined, "row")],
    ]);
  }
  if (moving(it)) return h("p", { class: "faint" }, "It can be taken back once it has ended.");
  if (!may) return missing("ingest.write");
  const reason = h("input", { name: "reason", required: true, maxlength: "1000", autocomplete: "off", placeholder: "no personal data" });
  const sure = h("input", { type: "checkbox", name: "sure", required: true });
  const take = async () => {
    const after = await post(`${path}:revert`, { reason: reason.value });
    announce("It is being taken back");
    again(after);
  };
  return deed("Take it back", take, { kind: "danger", shape: "replay", fields: [h("label", { class: "grow" }, "Reason", reason), h("label", { class: "inline" }, sure, `${plural(it.rows_accepted, "record")} will be gone${it.rows_quarantined ? `, and ${count(it.rows_quarantined)} in quarantine` : ""}`)] });
}
