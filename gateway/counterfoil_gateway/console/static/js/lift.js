/** A lift: naive, adjusted and matched on one axis, what that says in words, what it cost, and how alike the groups were. */
import { axis, chart } from "./charts.js";
import { markSynthetic } from "./datasets.js";
import { h } from "./dom.js";
import { count, currencySign, day, decimal, micros, money, number, percent, plural, title, words } from "./format.js";
import { card, completeness, folded, receipted, receiptLink, syntheticBadge, table, unknown } from "./parts.js";

const METHODS = [
  ["naive", "Naive", "Treated minus not treated, as they are (Welch)"],
  ["adjusted", "Adjusted", "Regression on the time before and covariates (Lin 2013, HC2)"],
  ["matched", "Matched", "Nearest neighbours with bias correction (Abadie and Imbens 2011)"],
];
const GENERIC = new Set(["amount", "total", "value"]); // names that say nothing without their dataset
const ALIKE = 0.1; // a standardised mean difference above it is not alike

/** One method's estimate of one measure; without a measure of the first there is. */
export const estimateOf = (lift, method, measure = lift.estimates[0]?.measure) =>
  lift.estimates.find((one) => one.method === method && one.measure === measure);

const currencyOf = (lift, measure) => (measure === "value" ? lift.spec.outcome.currency : "");

/** What a measure counts, in the words of the data. */
export function measureName(lift, measure) {
  const { outcome } = lift.spec;
  if (measure === "value") return GENERIC.has(outcome.value_field) ? `${outcome.value_field} of ${things(outcome.dataset)}` : words(outcome.value_field).replace(/ (micros|value)$/, "");
  if (!outcome.count_field) return "records";
  if (outcome.count_field === "hs_object_id") return things(outcome.dataset); // HubSpot's name for the id of whatever the dataset holds
  return plurals(words(outcome.count_field).replace(/ id$/, ""));
}

/** What a dataset holds: `harbour_deals` are deals. */
const things = (dataset) => words(dataset).split(" ").at(-1);

const plurals = (word) => (word.endsWith("s") ? word : `${word}s`);
const unitName = (lift) => words(lift.spec.outcome.unit_type || lift.spec.outcome.unit_field).replace(/ id$/, "");

/** An amount of this estimate's measure. */
export const compact = (lift, estimate, value) => (currencyOf(lift, estimate.measure) ? money(value, currencyOf(lift, estimate.measure)) : number(value));

/** A total over all treated units: whole money, whole things. */
export const whole = (lift, estimate, value) => (currencyOf(lift, estimate.measure) ? money(value, currencyOf(lift, estimate.measure), 0) : count(value));

/** The incremental total, with its sign. */
export const incrementalText = (lift, estimate) => `${estimate.incremental > 0 ? "+" : ""}${whole(lift, estimate, estimate.incremental)}`;

export function liftCard(lift, signal) {
  const { spec } = lift;
  const measures = [...new Set(lift.estimates.map((one) => one.measure))];
  const marks = h("span");
  markSynthetic(marks, [spec.outcome.dataset, spec.assignment.dataset], syntheticBadge);
  const name = spec.name || `Lift of ${words(spec.assignment.dataset)}`;
  return card(
    h("span", {}, name, marks),
    h(
      "div",
      {},
      h(
        "div",
        { class: "lift-body" },
        h("div", {}, measures.map((measure, index) => h("p", { class: index ? "verdict also" : "verdict" }, verdict(lift, measure))), sizes(lift), costLine(lift)),
        h("div", { class: "stack" }, measures.map((measure) => measureChart(lift, measure, signal))),
      ),
      h("div", { class: "lift-extra" }, estimatesTable(lift, measures)),
      h("div", { class: "lift-extra" }, h("p", { class: "caveat" }, lift.caveat), completeness(lift.completeness), folded(balanceTitle(lift), () => balanceTable(lift)), lift.cost?.parts?.length > 0 && folded("What it cost, by field", () => costTable(lift))),
    ),
    { note: `${day(spec.first_day)} to ${day(spec.last_day)}, compared on ${day(spec.pre_first_day)} to ${day(spec.pre_last_day)}. Outcome: ${spec.outcome.dataset}. Treated: ${spec.assignment.dataset}.`, aside: receiptLink(lift.receipt_id), id: `lift-${lift.lift_id}` },
  );
}

const covers = (estimate, value) => estimate.lower <= value && value <= estimate.upper;

/** What the three estimates say together. Every sentence follows from the numbers it shows. */
export function verdict(lift, measure) {
  const naive = estimateOf(lift, "naive", measure);
  const adjusted = estimateOf(lift, "adjusted", measure);
  if (!naive || !adjusted) return "Not every method could be computed; see below.";
  const show = (estimate, kind) => h("span", { class: kind }, receipted(compact(lift, estimate, estimate.difference), lift.receipt_id));
  const interval = `${percent(lift.spec.coverage || 0.95)} interval ${compact(lift, adjusted, adjusted.lower)} to ${compact(lift, adjusted, adjusted.upper)}`;
  const opening = ["As they are, treated ", plurals(unitName(lift)), naive.difference >= 0 ? " are ahead by " : " are behind by ", show(naive, "naive"), ` each in ${measureName(lift, measure)}`, naive.ratio === undefined ? ". " : ` (${decimal(naive.ratio, 1)}×). `];
  const then = ["Adjusted for how they differed before, the difference is ", show(adjusted, "adjusted"), ` (${interval}).`];
  return [opening, then, " ", conclusion(naive, adjusted, measureName(lift, measure))];
}

function conclusion(naive, adjusted, name) {
  const chosen = naive.difference > 0 && adjusted.difference >= 0 && adjusted.difference < naive.difference && percent(1 - adjusted.difference / naive.difference);
  const selection = chosen ? ` By this estimate ${chosen} of the naive gap is who was chosen.` : "";
  if (covers(adjusted, 0)) return ["Zero is inside the interval: ", h("strong", {}, `no effect on ${name} is shown`), ".", selection];
  return ["Zero is outside the interval: ", h("strong", {}, adjusted.difference < 0 ? `${name} went down` : `an effect on ${name} is shown`), ".", selection];
}

function sizes(lift) {
  const units = plurals(unitName(lift));
  return h("p", { class: "faint" }, receipted(count(lift.treated), lift.receipt_id, { quiet: true }), ` treated ${units}, `, receipted(count(lift.control), lift.receipt_id, { quiet: true }), " not treated", lift.left_out > 0 && [", ", receipted(count(lift.left_out), lift.receipt_id, { quiet: true }), " left out"], ".");
}

function costLine(lift) {
  const { cost } = lift;
  if (!cost) return null;
  if (cost.cost_micros === undefined) return h("p", { class: "faint" }, "Cost: ", unknown());
  return h("p", {}, "It cost ", receipted(micros(cost.cost_micros, cost.currency), lift.receipt_id), ".");
}

function measureChart(lift, measure, signal) {
  const estimates = METHODS.map(([method]) => estimateOf(lift, method, measure)).filter(Boolean);
  const label = `${title(measureName(lift, measure))} per treated ${unitName(lift)}: ${estimates.map((one) => `${one.method} ${compact(lift, one, one.difference)}, ${compact(lift, one, one.lower)} to ${compact(lift, one, one.upper)}`).join("; ")}.`;
  return h(
    "figure",
    {},
    h("figcaption", { class: "measure-title" }, `Difference in ${measureName(lift, measure)} per treated ${unitName(lift)}, with ${percent(lift.spec.coverage || 0.95)} intervals`),
    chart((ink) => dots(ink, lift, estimates, measure), { height: 148, label, signal }),
  );
}

/** A dot and an interval per method, on one axis that holds zero. */
function dots(ink, lift, estimates, measure) {
  const colour = { naive: ink.naive, adjusted: ink.accent, matched: ink.second };
  const currency = currencyOf(lift, measure);
  const names = Object.fromEntries(METHODS.map(([method, name]) => [method, name]));
  const data = estimates.map((one) => ({
    type: "scatter", mode: "markers", x: [one.difference], y: [names[one.method]], name: names[one.method],
    marker: { size: 11, color: one.method === "naive" ? ink.surface : colour[one.method], line: { color: colour[one.method], width: 2.4 } },
    error_x: { type: "data", symmetric: false, array: [one.upper - one.difference], arrayminus: [one.difference - one.lower], color: colour[one.method], thickness: 2.4, width: 5 },
    hovertemplate: `${names[one.method]}: ${compact(lift, one, one.difference)}<br>${compact(lift, one, one.lower)} to ${compact(lift, one, one.upper)}<extra></extra>`,
  }));
  const ends = estimates.flatMap((one) => [one.lower, one.upper, 0]);
  const span = Math.max(...ends) - Math.min(...ends) || 1;
  return {
    data,
    layout: {
      margin: { l: 70, r: 10, t: 4, b: 24 },
      hovermode: "closest",
      xaxis: axis(ink, { range: [Math.min(...ends) - span * 0.05, Math.max(...ends) + span * 0.16], ticksuffix: currency && currency !== "USD" ? ` ${currencySign(currency)}` : "", tickformat: (currency === "USD" ? "$" : "") + (span >= 8000 ? ",~s" : ",~r"), nticks: 7 }),
      yaxis: axis(ink, { type: "category", categoryorder: "array", categoryarray: METHODS.map(([, name]) => name).reverse(), range: [-0.6, estimates.length - 0.4], showgrid: false, tickfont: { color: ink.ink, size: 12.5 } }),
      shapes: [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: ink.ink, width: 1.2 }, layer: "below" }],
      annotations: estimates.map((one) => ({ x: one.upper, y: names[one.method], text: compact(lift, one, one.difference), showarrow: false, xanchor: "left", xshift: 9, font: { color: colour[one.method], size: 12.5, weight: 600 } })),
    },
  };
}

const method = (name) => h("span", { class: `method method-${name}` }, h("i", { "aria-hidden": "true" }), METHODS.find(([id]) => id === name)?.[1] ?? name);

function estimatesTable(lift, measures) {
  const rows = measures.flatMap((measure) => METHODS.map(([name]) => estimateOf(lift, name, measure)).filter(Boolean));
  const show = (text) => receipted(text, lift.receipt_id, { quiet: true });
  const amount = (row, value) => show(compact(lift, row, value));
  const per = (row) => row.measure === "count" && lift.cost?.per_incremental?.find((one) => one.method === row.method);
  return table(
    [
      { label: "Measure", cell: (row) => title(measureName(lift, row.measure)) },
      { label: "Method", head: "row", cell: (row) => method(row.method) },
      { label: "Treated mean", align: "number", cell: (row) => amount(row, row.treated_mean) },
      { label: "Compared with", align: "number", cell: (row) => amount(row, row.control_mean) },
      { label: "Difference", align: "number", cell: (row) => h("span", { class: "strong" }, amount(row, row.difference)) },
      { label: "Interval", align: "number", cell: (row) => show(`${compact(lift, row, row.lower)} to ${compact(lift, row, row.upper)}`) },
      { label: "Ratio", align: "number", cell: (row) => (row.ratio === undefined ? unknown("—") : show(`${decimal(row.ratio, 2)}×`)) },
      { label: "Incremental", align: "number", cell: (row) => show(incrementalText(lift, row)) },
      { label: "Cost per one more", align: "number", tip: "Cost per incremental unit of count; not told where the estimate is not above zero", cell: (row) => costPer(lift, per(row), show) },
    ],
    rows,
    { caption: "Estimates by method", dense: true },
  );
}

function costPer(lift, found, show) {
  if (!found || found.cost_micros === undefined) return unknown(found ? "no gain to divide by" : "—");
  const { currency } = lift.cost;
  const range = found.lower_micros === undefined ? null : found.upper_micros === undefined ? `from ${micros(found.lower_micros, currency)}` : `${micros(found.lower_micros, currency)} – ${micros(found.upper_micros, currency)}`;
  return [show(micros(found.cost_micros, currency)), range && h("span", { class: "faint", title: found.upper_micros === undefined ? "Without an upper bound: the estimate's interval reaches zero" : null }, ` (${range})`)];
}

function balanceTitle(lift) {
  const before = lift.balance.filter((row) => Math.abs(row.difference_before) > ALIKE).length;
  const after = lift.balance.filter((row) => Math.abs(row.difference_matched) > ALIKE).length;
  return `How alike the groups were: ${count(before)} of ${plural(lift.balance.length, "thing")} differed before, ${count(after)} after matching`;
}

function balanceTable(lift) {
  const show = (value) => receipted(decimal(value), lift.receipt_id, { quiet: true });
  const alike = (value) => h("span", { class: Math.abs(value) > ALIKE ? "unalike" : null }, show(value));
  return table(
    [
      { label: "Before treatment", head: "row", sort: (row) => row.covariate, cell: (row) => row.covariate },
      { label: "Treated mean", align: "number", cell: (row) => show(row.treated_mean) },
      { label: "Control mean", align: "number", cell: (row) => show(row.control_mean) },
      { label: "Matched control", align: "number", cell: (row) => show(row.matched_mean) },
      { label: "Difference before", tip: "Standardised mean difference; above 0.1 is not alike", align: "number", sort: (row) => Math.abs(row.difference_before), cell: (row) => alike(row.difference_before) },
      { label: "Difference matched", tip: "Standardised mean difference after matching", align: "number", sort: (row) => Math.abs(row.difference_matched), cell: (row) => alike(row.difference_matched) },
    ],
    lift.balance,
    { caption: "Balance of the groups", dense: true, sorted: { column: 4, down: true } },
  );
}

const costTable = (lift) =>
  table(
    [
      { label: "Field", head: "row", cell: (row) => h("code", {}, row.field) },
      { label: "Cost", align: "number", cell: (row) => receipted(micros(row.cost_micros, lift.cost.currency), lift.receipt_id) },
    ],
    lift.cost.parts,
    { caption: "Cost by field", dense: true },
  );
