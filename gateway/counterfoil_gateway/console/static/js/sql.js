/** A box to ask the lake in: one SELECT, its rows, as a file, with a receipt. */
import { download, post } from "./api.js";
import { announce, fill, h, icon } from "./dom.js";
import { deed } from "./forms.js";
import { count, plural } from "./format.js";
import { badge, receiptLink, table } from "./parts.js";

const MOST_ROWS = 500; // that are shown
const LONGEST = 300; // characters of a value
const MASKS = { MASK_NULL: "left out", MASK_PSEUDONYM: "a pseudonym" };

/** The box, with a statement to begin with. */
export function sqlBox(statement) {
  const sql = h("textarea", { name: "sql", rows: "5", class: "mono sql", spellcheck: "false", required: true, "aria-label": "SQL", onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && run.requestSubmit() });
  sql.value = statement;
  const receipt = h("input", { type: "checkbox", name: "receipt", onchange: () => (said.hidden = !receipt.checked) });
  const purpose = h("input", { name: "purpose", maxlength: "100", placeholder: "media_planning", autocomplete: "off" });
  const said = h("label", { hidden: true }, "For what", purpose);
  const result = h("div", { role: "status" });
  const asked = () => ({ sql: sql.value, ...(receipt.checked && { receipt: true, purpose: purpose.value }) });
  const run = deed("Run", async () => {
    fill(result);
    const answer = await post("/v1/sql", { ...asked(), max_rows: MOST_ROWS }, { slow: true });
    announce(plural(answer.row_count, "row"));
    fill(result, rowsView(answer));
  }, { kind: "primary", fields: [h("label", { class: "inline" }, receipt, "with a receipt"), said] });
  const save = deed("All rows as CSV", () => download("/v1/sql", asked(), { accept: "text/csv", name: "counterfoil.csv" }), { shape: "download" });
  return h("div", { class: "stack" }, sql, h("div", { class: "form" }, run, save), result);
}

/** The rows of an answer, and what is to be known of them. */
export const rowsView = (answer, { caption = "Rows" } = {}) =>
  h(
    "div",
    { class: "stack rows" },
    h(
      "p",
      { class: "faint" },
      plural(answer.row_count, "row"), answer.truncated && ` of more: only the first ${count(answer.row_count)} are shown`,
      answer.snapshots.map((one) => [" · ", h("code", {}, one.dataset), ` up to offset ${one.offsets.map((place) => count(place.offset)).join(", ")}`]),
      answer.receipt_id && [" · ", receiptLink(answer.receipt_id)],
    ),
    maskedView(answer.masked),
    table(answer.columns.map((column, index) => ({ label: column.name, tip: column.type, align: NUMBERS.test(column.type) ? "number" : undefined, cell: (row) => shown(row[index]) })), answer.rows, { caption, dense: true, empty: h("p", {}, "There are no such rows.") }),
  );

const NUMBERS = /INT|DOUBLE|FLOAT|DECIMAL/i;

/** Says which fields this key does not see as they are. */
export const maskedView = (masked) =>
  masked.length > 0 && h("p", { class: "notice" }, icon("warn"), " Not shown as they are, since no policy lets this key read them: ", masked.map((one, index) => [index ? ", " : "", h("code", {}, `${one.dataset}.${one.path.replace(/^\$\./, "")}`), " ", badge(MASKS[one.mask] ?? "masked", "warn", one.classification)]), ".");

function shown(value) {
  if (value === null) return h("span", { class: "faint" }, "null");
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > LONGEST ? h("span", { title: text.slice(0, 5_000) }, `${text.slice(0, LONGEST)}…`) : text;
}
