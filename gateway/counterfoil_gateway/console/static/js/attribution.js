/** The table of an attribution: subjects down, six models across. */
import { h } from "./dom.js";
import { count, decimal, micros, title } from "./format.js";
import { nothing, receipted, table, unknown } from "./parts.js";

const MODELS = [
  ["first", "First", "All credit to the first touchpoint"],
  ["last", "Last", "All credit to the last touchpoint"],
  ["linear", "Linear", "Equal credit to every touchpoint"],
  ["time_decay", "Time decay", "More credit the nearer to the conversion"],
  ["position", "Position", "40 % to the first, 40 % to the last, the rest shared"],
  ["markov", "Markov", "Order 1, by the removal effect: how many conversions go when the subject is taken away"],
];

/** What the six columns can show. */
export function unitChoices(attribution) {
  const choices = [["conversions", "Conversions"]];
  if (attribution.value_micros) choices.push(["value", "Value"]);
  if (attribution.rows.some((row) => row.cost_micros !== undefined)) choices.push(["cost", "Cost per conversion"]);
  return choices;
}

const credit = (row, model) => row.credits.find((one) => one.model === model);

/** One row per channel or campaign; `unit` is `conversions`, `value` or `cost`. */
export function attributionTable(attribution, unit) {
  const show = (text) => receipted(text, attribution.receipt_id, { quiet: true });
  const amount = (row, model) => {
    const found = credit(row, model);
    if (!found) return null;
    if (unit === "conversions") return found.conversions;
    return (unit === "value" ? found.value_micros : found.cost_per_conversion_micros) ?? null;
  };
  const text = (row, value) => (unit === "conversions" ? decimal(value, 1) : micros(value, unit === "cost" ? row.cost_currency : attribution.currency));
  const most = Math.max(...attribution.rows.flatMap((row) => MODELS.map(([model]) => amount(row, model) ?? 0)), 0);
  const cell = (row, model) => {
    const value = amount(row, model);
    if (value === null) return unknown("—");
    return show(text(row, value));
  };
  const subject = title(attribution.spec.subject === "CAMPAIGN" ? "campaign" : "channel");
  return table(
    [
      { label: subject, head: "row", sort: (row) => row.name || row.subject, cell: (row) => [row.name || row.subject, row.name && row.name !== row.subject && h("span", { class: "faint" }, ` ${row.subject}`)] },
      { label: "Touchpoints", align: "number", sort: (row) => row.touchpoints, cell: (row) => show(count(row.touchpoints)) },
      ...MODELS.map(([model, label, tip]) => ({ label, tip, align: "number", sort: (row) => amount(row, model), share: unit === "cost" ? null : (row) => (most > 0 ? (amount(row, model) ?? 0) / most : 0), cell: (row) => cell(row, model) })),
      { label: "Cost", align: "number", sort: (row) => row.cost_micros ?? null, cell: (row) => (row.cost_micros === undefined ? unknown() : show(micros(row.cost_micros, row.cost_currency))) },
      { label: "Per conversion", tip: "The cheapest and the dearest of the six models", align: "number", sort: (row) => costs(row)[0] ?? null, cell: (row) => perConversion(row, show) },
    ],
    attribution.rows,
    { caption: "Credit by model", sorted: { column: 2 + 5, down: true }, empty: nothing("No touchpoint fell into the period.") },
  );
}

const costs = (row) => row.credits.map((one) => one.cost_per_conversion_micros).filter((value) => value !== undefined).sort((a, b) => a - b);

function perConversion(row, show) {
  const found = costs(row);
  if (!found.length) return unknown();
  const low = micros(found[0], row.cost_currency);
  const high = micros(found.at(-1), row.cost_currency);
  return show(low === high ? low : `${low} – ${high}`);
}
