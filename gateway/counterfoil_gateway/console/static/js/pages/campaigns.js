/** Campaigns: what attribution credits beside what lift finds, with intervals, cost and caveats. */
import { get, once, segment } from "../api.js";
import { datasetsOf, markSynthetic } from "../datasets.js";
import { fill, h } from "../dom.js";
import { count, day, micros, percent, plural, words } from "../format.js";
import { card, choice, completeness, facts, heading, nothing, pending, receipted, receiptLink, since, syntheticBadge } from "../parts.js";
import { attributionTable, unitChoices } from "../attribution.js";
import { estimateOf, incrementalText, liftCard, measureName, whole } from "../lift.js";

const LIFTS_SHOWN = 12;
const LIFT_HINT = "Say who was treated, what they did, and the time before: POST /v1/lift. The demo measures two.";
const ATTRIBUTION_HINT = "Attribute the conversions of a period: POST /v1/attribution. The demo does it.";

export function campaigns({ query, signal, go }) {
  const lifts = allLifts(signal);
  const attributions = chosenAttribution(query.get("attribution"), signal);
  return h(
    "div",
    { class: "stack" },
    heading("Campaigns", { intro: "Attribution says who was there when somebody bought. Lift estimates what would not have happened otherwise. Read them side by side." }),
    readings(attributions, lifts),
    card("Attribution", pending(() => attributions(), (found) => attributionView(found, { go }), { height: 380 }), {
      note: "Six models share out the same conversions. Where they disagree, the credit is a convention, not a finding.", id: "attribution",
    }),
    pending(() => lifts(), (found) => liftsView(found, signal), { height: 420 }),
  );
}

/** The newest lifts with their tables, the latest measurement of each question first. */
function allLifts(signal) {
  return once(async () => {
    const { lifts } = await get("/v1/lift", { page_size: 100 }, signal);
    const asked = new Map();
    for (const lift of lifts) {
      const question = JSON.stringify(lift.spec);
      if (!asked.has(question)) asked.set(question, lift);
    }
    const newest = [...asked.values()].slice(0, LIFTS_SHOWN);
    return Promise.all(newest.map((lift) => get(`/v1/lift/${segment(lift.lift_id)}`, {}, signal)));
  });
}

/** One attribution with its credits, the receipt that names its data, and the list to choose from. */
function chosenAttribution(wanted, signal) {
  return once(async () => {
    const { attributions } = await get("/v1/attribution", { page_size: 100 }, signal);
    const id = wanted ?? attributions[0]?.attribution_id;
    if (!id) return null;
    const attribution = await get(`/v1/attribution/${segment(id)}`, {}, signal);
    const receipt = await get(`/v1/receipts/${segment(attribution.receipt_id)}`, {}, signal).catch(() => null); // without governance.read the data stay unnamed
    return { attribution, receipt, attributions };
  });
}

/** Three readings of the same effort: credited, ahead as they are, and what is left once like is compared with like. */
function readings(attributions, lifts) {
  const credited = reading("Credited by attribution");
  const naive = reading("Ahead, taken as they are", "naive");
  const adjusted = reading("Caused, as adjusted lift estimates", "adjusted");
  const trouble = (...places) => (error) => places.forEach((place) => place.show("—", error.reason ?? ""));
  attributions().then((found) => {
    if (!found) return credited.show("—", "No attribution yet.");
    const { attribution: it } = found;
    const share = it.conversions ? percent(it.attributed_conversions / it.conversions) : "none";
    return credited.show(receipted(count(it.attributed_conversions), it.receipt_id), `${share} of ${count(it.conversions)} ${words(it.spec.conversion_type)} conversions met a campaign before, ${period(it.spec)}`, datasetsOfAttribution(found));
  }, trouble(credited));
  Promise.all([lifts(), attributions().catch(() => null)]).then(([found, attributed]) => {
    const lift = besides(found, attributed);
    if (!lift) return [naive, adjusted].forEach((place) => place.show("—", "No lift measured yet."));
    const measure = estimateOf(lift, "adjusted", "count") ? "count" : lift.estimates[0].measure;
    const [before, after] = [estimateOf(lift, "naive", measure), estimateOf(lift, "adjusted", measure)];
    const range = (one) => `interval ${whole(lift, one, one.incremental_lower)} to ${whole(lift, one, one.incremental_upper)}`;
    const text = (one) => receipted(incrementalText(lift, one), lift.receipt_id);
    const datasets = [lift.spec.outcome.dataset, lift.spec.assignment.dataset];
    if (before) naive.show(text(before), `${measureName(lift, measure)} more than those not treated, ${range(before)}`, datasets);
    return adjusted.show(text(after), `${measureName(lift, measure)} more than without, ${range(after)}, ${period(lift.spec)}`, datasets);
  }, trouble(naive, adjusted));
  const not = () => h("span", { class: "versus", "aria-hidden": "true" }, "≠");
  return h("div", { class: "readings" }, credited.place, not(), naive.place, not(), adjusted.place);
}

function reading(name, kind = "") {
  const value = h("p", { class: "big" }, "\u00a0");
  const text = h("p", {}, "\u00a0");
  const marks = h("span");
  return {
    place: h("section", { class: `reading ${kind}` }, h("h2", {}, name, marks), value, text),
    show: (number, words, datasets = []) => {
      fill(value, number);
      fill(text, words);
      fill(marks);
      markSynthetic(marks, datasets, syntheticBadge);
    },
  };
}

/** The lift to read beside an attribution: of the same data if there is one, else the newest. */
function besides(lifts, attributed) {
  const complete = lifts.filter((lift) => estimateOf(lift, "adjusted"));
  const datasets = attributed?.receipt ? datasetsOf(attributed.receipt) : new Set();
  return complete.find((lift) => datasets.has(lift.spec.outcome.dataset)) ?? complete[0];
}

/** The datasets that an attribution is made from, costs included. */
const datasetsOfAttribution = ({ attribution, receipt }) => [...attribution.spec.costs.map((cost) => cost.dataset), ...(receipt ? datasetsOf(receipt) : [])];

const period = (spec) => `${day(spec.first_day)} to ${day(spec.last_day)}`;

function attributionView(found, { go }) {
  if (!found) return nothing("No attribution yet.", { hint: ATTRIBUTION_HINT, commands: ["counterfoil demo"] });
  const { attribution: it, attributions } = found;
  const place = h("div");
  const draw = (unit) => fill(place, attributionTable(it, unit));
  draw("conversions");
  const marks = h("span");
  markSynthetic(marks, datasetsOfAttribution(found), syntheticBadge);
  return h(
    "div",
    { class: "stack" },
    h(
      "div",
      { class: "forecast-head" },
      h(
        "p",
        {},
        h("span", { class: "strong" }, `${words(it.spec.conversion_type)} conversions by ${words(it.spec.subject)}`), marks,
        h("span", { class: "faint" }, ` ${period(it.spec)} · ${windowText(it.spec)} · `, since(it.created_at)),
      ),
      h("div", { class: "aside" }, attributions.length > 1 && picker(attributions, it, go), choice("What the cells show", unitChoices(it), "conversions", draw), receiptLink(it.receipt_id)),
    ),
    place,
    h("p", { class: "caveat" }, it.caveat || "Attribution says who was there, not what was caused: read it beside lift."),
    facts(
      [
        ["Conversions", receipted(count(it.conversions), it.receipt_id)],
        ["Attributed", receipted(count(it.attributed_conversions), it.receipt_id)],
        ["Paths without one", receipted(count(it.null_paths), it.receipt_id)],
        ["Value", receipted(micros(it.value_micros, it.currency), it.receipt_id)],
        ["Attributed value", receipted(micros(it.attributed_value_micros, it.currency), it.receipt_id)],
        ["Still open", receipted(count(it.open_paths), it.receipt_id)],
      ],
      { columns: 3 },
    ),
    completeness(it.completeness),
  );
}

function picker(attributions, chosen, go) {
  return h(
    "select",
    { "aria-label": "Attribution", onchange: (event) => go(`/console/campaigns?attribution=${encodeURIComponent(event.target.value)}`) },
    attributions.map((one) =>
      h("option", { value: one.attribution_id, selected: one.attribution_id === chosen.attribution_id }, `${words(one.spec.conversion_type)} by ${words(one.spec.subject)}, ${day(one.spec.first_day)} – ${day(one.spec.last_day)}`),
    ),
  );
}

const windowText = (spec) => (spec.window === "FLIGHT" ? "touchpoints of campaigns in flight" : `touchpoints of the ${plural(spec.lookback_days, "day")} before`);

function liftsView(lifts, signal) {
  if (!lifts.length) return card("Lift", nothing("No lift measured yet.", { hint: LIFT_HINT, commands: ["counterfoil demo"] }));
  return h("div", { class: "stack", id: "lift" }, lifts.map((lift) => liftCard(lift, signal)));
}
