/** Monitors: what is watched of datasets as a whole, whether it is as it should be, and what is held because it is not. */
import { get, post, segment } from "./api.js";
import { announce, fill, h } from "./dom.js";
import { brief, percent, words } from "./format.js";
import { at, badge, folded, nothing, pending, problemBox, since, table } from "./parts.js";

export const incidentPath = (id) => `/console/trust/incidents/${segment(id)}`;

const STATES = { PASSING: ["kept", "good"], FAILING: ["broken", "bad"], ERROR: ["nobody knows", "warn"], PENDING: ["not looked at yet", "plain"], LEARNING: ["learning", "plain"] };

/** Whether a promise is kept, or how many are. */
export function monitorBadge(state, many) {
  const [text, kind] = STATES[state] ?? [words(state), "plain"];
  return badge(many === undefined ? text : `${many} ${text}`, kind);
}

/** Says that nothing new is made from a dataset. */
export const heldBadge = () => badge("held", "bad", "Nothing new is made from the dataset until its incident is resolved; what was made before stays");

/** What was measured, in its unit. */
export function measured(value, unit) {
  if (value === undefined || value === null) return h("span", { class: "faint" }, "nothing");
  if (unit === "percent") return percent(value / 100, 2);
  if (unit === "seconds") return duration(value);
  return `${brief(value)}${unit === "value" ? "" : ` ${value === 1 ? unit.replace(/ies$/, "y").replace(/s$/, "") : unit}`}`;
}

/** Whether the contract itself promises what a monitor looks at. */
export const fromContract = (one) => one.origin !== "DEFAULT" && one.origin !== "CONFIGURED";

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60]];

function duration(seconds) {
  for (const [unit, length] of UNITS) if (seconds >= length) return `${brief(seconds / length)} ${unit}`;
  return `${brief(seconds)} s`;
}

/** A table of monitors, each with its last results on asking; `set(monitor)`, if given, makes the form that changes one. */
export const monitorTable = (monitors, { signal, dataset = false, set } = {}) =>
  table(
    [
      { label: "What is watched", head: "row", sort: (one) => one.monitor_id, cell: (one) => [promise(one), h("div", { class: "faint" }, h("code", {}, one.monitor_id))] },
      ...(dataset ? [{ label: "Dataset", cell: (one) => h("span", { class: "mono" }, one.dataset) }] : []),
      { label: "Expected", cell: (one) => one.expectation },
      { label: "Measured", align: "number", cell: (one) => measured(one.measured, one.unit) },
      { label: "State", sort: (one) => one.state, cell: (one) => [one.enabled === false ? badge("turned off", "plain", "Somebody does not want it to be looked at") : monitorBadge(one.state), one.held && [" ", heldBadge()], one.data_breaker && !one.held && h("div", { class: "faint" }, "holds when broken")] },
      { label: "Looked at", align: "number", cell: (one) => since(one.evaluated_at) },
      { label: "Results", cell: (one) => [one.incident_id && h("div", {}, h("a", { href: incidentPath(one.incident_id) }, "Incident")), folded("Last results", () => pending(() => get(`/v1/monitors/${segment(one.monitor_id)}`, {}, signal), resultsView)), set && !fromContract(one) && folded("Change", () => set(one))] },
    ],
    monitors,
    { caption: "Monitors", empty: nothing("Nothing is watched.", { hint: "Rules under quality and service levels under slaProperties become monitors when a version comes into force." }) },
  );

/** What a monitor looks at, in words. */
export const promise = (one) => h("span", {}, one.description || [one.metric.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase(), one.property && [" of ", h("code", {}, one.property)]]);

/** The last results of one monitor: a line, then the list. */
export function resultsView(monitor) {
  if (!monitor.results.length) return h("p", { class: "faint" }, "It was not looked at yet.");
  return h("div", { class: "stack results" }, sparkline(monitor), folded(`Last results (${Math.min(monitor.results.length, SHOWN)})`, () => resultTable(monitor)));
}

const SHOWN = 20;

const resultTable = (monitor) =>
  table(
    [
      { label: "When", head: "row", cell: (one) => at(one.evaluated_at) },
      { label: "State", cell: (one) => monitorBadge(one.state) },
      { label: "Measured", align: "number", cell: (one) => measured(one.measured, monitor.unit) },
      { label: "Found", cell: (one) => one.detail },
    ],
    monitor.results.slice(0, SHOWN),
    { caption: `Last results of ${monitor.monitor_id}`, dense: true },
  );

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, RADIUS] = [420, 56, 3];

/** The measured values, oldest at the left; a point for each in the colour of its state. */
function sparkline({ results, monitor_id: id }) {
  const points = [...results].reverse().filter((one) => Number.isFinite(one.measured));
  if (points.length < 2) return null;
  const values = points.map((one) => one.measured);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (index) => RADIUS + (index * (WIDTH - 2 * RADIUS)) / (points.length - 1);
  const y = (value) => HEIGHT - RADIUS - (high === low ? 0.5 : (value - low) / (high - low)) * (HEIGHT - 2 * RADIUS);
  const draw = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const image = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "sparkline", role: "img", "aria-label": `The last ${points.length} values of ${id}, the newest at the right` });
  image.append(draw("polyline", { points: values.map((value, index) => `${x(index)},${y(value)}`).join(" ") }));
  points.forEach((one, index) => image.append(draw("circle", { cx: x(index), cy: y(one.measured), r: RADIUS, class: `state-${one.state.toLowerCase()}` })));
  return image;
}

/** A button that looks at a monitor now; `done` takes the monitor as it is then. */
export function evaluateButton(id, done) {
  const trouble = h("div", { role: "status" });
  const button = h("button", { type: "button", class: "button", onclick: evaluate }, "Look at it now");
  async function evaluate() {
    button.disabled = true;
    try {
      const found = await post(`/v1/monitors/${segment(id)}:evaluate`, {}, { slow: true });
      announce(`The promise is ${STATES[found.state]?.[0] ?? words(found.state)}`);
      await done(found);
    } catch (error) {
      fill(trouble, problemBox(error));
    }
    button.disabled = false;
  }
  return h("div", { class: "stack" }, h("div", {}, button), trouble);
}
