/** What a change of a dataset, of some of its fields or of a contract reaches. */
import { get } from "./api.js";
import { h, icon } from "./dom.js";
import { count, plural, words } from "./format.js";
import { nodePath } from "./lineage.js";
import { at, badge, card, folded, nothing, pending, receiptPath, shortened, table } from "./parts.js";

/** A card for `{dataset, namespace?, fields?}` or `{contract_id, version?}`. */
export const impactCard = (what, { signal, note, span } = {}) => card("What a change reaches", pending(() => get(`/v1/impact?${parameters(what)}`, {}, signal), impactView, { height: 160 }), { note, span });

/** Query parameters; `fields` is told once for each. */
function parameters({ fields = [], ...rest }) {
  const query = new URLSearchParams(Object.entries(rest).filter(([, value]) => value));
  for (const field of fields) query.append("fields", field);
  return query;
}

const KINDS = [["DATASET", "dataset"], ["JOB", "job"], ["MODEL_VERSION", "model version"], ["AUDIENCE", "audience"], ["GRAPH", "part of the graph", "parts of the graph"]];

function impactView(found) {
  if (!found.items.length && !found.receipts_total) return nothing("It reaches nothing that is known.", { hint: "Lineage knows what our own services and OpenLineage producers told." });
  return h(
    "div",
    { class: "stack" },
    h("p", { class: "strong" }, [...KINDS.map(([kind, ...name]) => [found.items.filter((one) => one.kind === kind).length, ...name]), [found.receipts_total, "receipt"]].filter(([many]) => many).map(([many, ...name]) => plural(many, ...name)).join(", ")),
    found.items.length > 0 && items(found.items),
    found.receipts.length > 0 && folded(`Newest receipts (${count(found.receipts.length)} of ${count(found.receipts_total)})`, () => receipts(found.receipts)),
    found.truncated && h("p", { class: "notice" }, "There is more than an answer holds."),
  );
}

const items = (found) =>
  table(
    [
      { label: "What", sort: (one) => one.kind, cell: (one) => words(one.kind) },
      { label: "Name", head: "row", sort: (one) => one.name, cell: (one) => [h("a", { href: nodePath(one.node_id) }, h("code", {}, one.name)), one.version && ` version ${one.version}`] },
      { label: "Fields", cell: (one) => (one.fields.length ? h("code", { class: "wrapped" }, one.fields.join(", ")) : one.assumed ? badge("all, assumed", "warn", "No job said which fields it reads, so all were taken for read") : h("span", { class: "faint" }, "all of it")) },
      { label: "Through", cell: (one) => h("code", { class: "faint" }, one.through) },
      { label: "Away", align: "number", sort: (one) => one.distance, cell: (one) => plural(one.distance, "job") },
    ],
    found,
    { caption: "What a change reaches", dense: true },
  );

const receipts = (found) =>
  table(
    [
      { label: "Receipt", head: "row", cell: (one) => h("a", { class: "receipt-link", href: receiptPath(one.receipt_id) }, icon("receipt"), shortened(one.receipt_id)) },
      { label: "Made by", cell: (one) => h("code", {}, one.job) },
      { label: "When", align: "number", cell: (one) => at(one.made_at) },
    ],
    found,
    { caption: "Receipts that a change reaches", dense: true },
  );
