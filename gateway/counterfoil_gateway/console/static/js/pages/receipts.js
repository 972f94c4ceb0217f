/** The workspace's receipts, newest first. */
import { get } from "../api.js";
import { datasetsOf, markSynthetic } from "../datasets.js";
import { h, icon } from "../dom.js";
import { words } from "../format.js";
import { at, badge, card, choice, heading, nothing, paged, receiptPath, shortened, syntheticBadge, table, tierBadge } from "../parts.js";

const PRODUCERS = [["", "All"], ["models", "Models"], ["graph", "Graph"]];

export function receipts({ query, signal, go }) {
  const producer = query.get("producer") ?? "";
  return h(
    "div",
    { class: "stack" },
    heading("Receipts", { intro: "Every number that leaves Counterfoil has one: the data, contract, model, policy and person behind it. Each can be replayed." }),
    card(
      "Newest first",
      paged((token) => get("/v1/receipts", { page_size: 25, page_token: token, producer }, signal), "receipts", list, {
        height: 480,
        empty: nothing("No receipt yet.", { hint: "A forecast, an attribution, a lift and an export each leave one.", commands: ["counterfoil demo"] }),
      }),
      { aside: choice("Producer", PRODUCERS, producer, (chosen) => go(`/console/trust/receipts${chosen ? `?producer=${chosen}` : ""}`)) },
    ),
  );
}

const list = (found) =>
  table(
    [
      { label: "Output", head: "row", cell: output },
      { label: "Purpose", cell: (one) => words(one.purpose) },
      { label: "Impact", cell: (one) => tierBadge(one.impact_tier) },
      { label: "Policies", cell: policies },
      { label: "Consent", cell: (one) => (one.consent ? words(one.consent.basis) : h("span", { class: "faint" }, "no personal data")) },
      { label: "Complete", cell: (one) => (one.completeness?.complete ? badge("complete", "good") : badge("gaps noted", "warn")) },
      { label: "Asked by", cell: (one) => one.principal },
      { label: "Made", align: "number", cell: (one) => at(one.created_at) },
    ],
    found,
    { caption: "Receipts" },
  );

function output(one) {
  const marks = h("span");
  markSynthetic(marks, datasetsOf(one), syntheticBadge);
  return h("div", { class: "output" }, h("a", { class: "receipt-link", href: receiptPath(one.receipt_id) }, icon("receipt"), outputKind(one.output)), marks, h("div", { class: "faint" }, shortened(one.receipt_id)));
}

/** `forecasts/0198…` as `forecast`. */
export const outputKind = (output) => words(output.split("/")[0]).replace(/s$/, "").replace(/^./, (letter) => letter.toUpperCase());

function policies(one) {
  if (!one.policy_checks.length) return h("span", { class: "faint" }, "none asked");
  const denied = one.policy_checks.filter((check) => !check.allowed).length;
  return denied ? badge(`${denied} denied`, "bad") : badge(`${one.policy_checks.length} allowed`, "good");
}
