/** Overview: what came in and how fresh it is, what is forecast from it, which models serve, how far the graph is. */
import { all, get, once, segment } from "../api.js";
import { markSynthetic } from "../datasets.js";
import { datasetTable } from "../datasettable.js";
import { fill, h } from "../dom.js";
import { forecastView, newestForecast } from "../forecast.js";
import { ago, count, plural, shareOf, title } from "../format.js";
import { incidentPath } from "../monitors.js";
import { at, badge, card, facts, figure, folded, hash, heading, nothing, pending, problemBox, since, syntheticBadge, table, tierBadge } from "../parts.js";
import { quarantinePath } from "../quarantine.js";
import { follow } from "../tail.js";

export function overview({ signal }) {
  const datasets = once(() => all("/v1/datasets", "datasets", { signal }));
  const models = once(() => all("/v1/models", "models", { signal }));
  const graph = once(() => get("/v1/graph", {}, signal));
  return h(
    "div",
    { class: "stack" },
    heading("Overview", { intro: "What came in, how fresh it is, and what is made of it." }),
    held(signal),
    figures({ datasets, models, graph, signal }),
    h(
      "div",
      { class: "grid" },
      card("Newest forecast", pending(() => newestForecast(signal), (found) => forecastView(found, signal), { height: 404 }), { span: 8 }),
      h(
        "div",
        { class: "stack span-4" },
        card("Champions", pending(models, (found) => modelsView(found, signal), { height: 110 }), { note: "The versions that serve, and how much came in since they were trained." }),
        card("Graph", pending(graph, graphView, { height: 230 }), { note: "Persons and what they met, derived from the log." }),
      ),
      card("Datasets", pending(datasets, datasetTable, { height: 220 }), { note: "Every record lies under a contract; what breaks it waits in quarantine with the reason." }),
    ),
  );
}

/** Says which datasets are held; nothing while none is, or for a key that may not know. */
function held(signal) {
  const place = h("div", { role: "status" });
  get("/v1/monitors", { held_only: true, page_size: 20 }, signal).then(
    ({ monitors }) =>
      monitors.length > 0 &&
      fill(place, h("p", { class: "notice" }, "Held until an incident is resolved, so that nothing new is made from it: ", monitors.map((one, index) => [index ? ", " : "", h("a", { href: incidentPath(one.incident_id) }, h("code", {}, one.dataset)), ` (${one.detail})`]))),
    (error) => error.name === "AbortError" || error.status === 403 || fill(place, problemBox(error)),
  );
  return place;
}

function figures({ datasets, models, graph, signal }) {
  const place = h("div", { class: "figures" });
  const tile = (label, id) => {
    const shown = figure(label, "\u00a0", { id });
    place.append(shown);
    return (value, sub, kind) => {
      fill(shown.querySelector(".figure-value"), value);
      fill(shown.querySelector(".figure-sub"), sub ?? "\u00a0");
      if (kind) shown.classList.add(kind);
    };
  };
  const records = tile("Records in the log", "figure-records");
  const quarantined = tile("In quarantine", "figure-quarantined");
  const live = tile("Arriving now", "figure-live");
  const persons = tile("Persons", "figure-persons");
  const serving = tile("Champions", "figure-models");
  const missing = (show) => (error) => error.name === "AbortError" || show("—", title(error.reason) || "not known");
  datasets().then((found) => {
    const total = found.reduce((sum, dataset) => sum + dataset.records, 0);
    const broken = found.reduce((sum, dataset) => sum + dataset.quarantined, 0);
    const newest = found.map((dataset) => dataset.last_received_at).filter(Boolean).sort().at(-1);
    records(count(total), newest ? ["newest ", since(newest)] : "nothing yet");
    quarantined(broken ? h("a", { href: quarantinePath() }, count(broken)) : "0", broken ? `${shareOf(broken / (total + broken))} of what came in` : "nothing broke its contract", broken ? "warn" : null);
  }, missing((value, sub) => [records, quarantined].forEach((show) => show(value, sub))));
  graph().then((found) => persons(count(found.persons), `${plural(found.identifiers, "identifier")}`), missing(persons));
  models().then((found) => serving(count(found.filter((model) => model.champion_version).length), `of ${plural(found.length, "model")}`), missing(serving));
  liveFigure(live, signal);
  return place;
}

/** Count what comes in while the page is open; drawn at most twice a second, however fast it comes. */
function liveFigure(show, signal) {
  let seen = 0;
  let last = null;
  let state = "off";
  let drawn = false;
  const draw = () => {
    drawn = false;
    const says = { on: last ? [last.dataset, " ", ago(last.received_at)] : "listening", off: "connecting", paused: "paused", refused: "the key may not read records" }[state];
    show(h("span", { class: "live" }, count(seen), h("span", { class: `pulse ${state === "on" ? "on" : "off"}`, role: "img", "aria-label": `Live tail: ${state}` })), says);
  };
  const soon = () => {
    if (drawn) return;
    drawn = true;
    setTimeout(draw, 500);
  };
  follow({
    signal,
    onRecord: (record) => {
      seen += 1;
      last = record;
      soon();
    },
    onState: (now) => {
      state = now;
      draw();
    },
  });
  draw();
  const ticking = setInterval(() => last && soon(), 10_000);
  signal.addEventListener("abort", () => clearInterval(ticking), { once: true });
}

function modelsView(models, signal) {
  if (!models.length) return nothing("No model yet.", { hint: "A model says what is predicted, from which dataset. The demo makes one:", commands: ["counterfoil demo"] });
  return h("ul", { class: "models" }, models.map((model) => modelItem(model, signal)));
}

function modelItem(model, signal) {
  const detail = h("div", { class: "sub" }, "\u00a0");
  const marks = h("span");
  if (model.forecast) markSynthetic(marks, [model.forecast.series.dataset], syntheticBadge);
  if (model.champion_version) {
    get(`/v1/models/${segment(model.model_id)}/versions/${model.champion_version}`, {}, signal).then(
      (version) => fill(detail, backtest(version)),
      (error) => error.name === "AbortError" || fill(detail, `Its version could not be read: ${error.reason}`),
    );
  } else fill(detail, "Train and promote a version to make it serve.");
  return h(
    "li",
    {},
    h("div", { class: "name" }, h("span", {}, model.display_name || model.model_id, marks), model.champion_version ? badge(`version ${model.champion_version}`, "good") : badge("none serves", "warn")),
    h("div", { class: "sub" }, title(model.purpose), " · ", tierBadge(model.impact_tier)),
    model.champion_version > 0 && h("div", { class: "sub" }, model.records_since_training ? [h("span", { class: "strong" }, count(model.records_since_training)), ` new ${model.records_since_training === 1 ? "record" : "records"} since training`] : "Nothing new since training"),
    detail,
  );
}

function backtest(version) {
  const scored = version.backtests.filter((test) => Number.isFinite(test.mase));
  const better = scored.filter((test) => test.mase < test.mase_seasonal_naive).length;
  return [
    "Trained ", since(version.finished_at ?? version.created_at),
    scored.length > 0 && h("span", { title: "Backtest with a rolling origin: the mean absolute scaled error against that of repeating last season" }, ` · beats the seasonal naive forecast in ${better} of ${plural(scored.length, "series", "series")}`),
  ];
}

function graphView(graph) {
  const state = graph.state ?? {};
  return h(
    "div",
    { class: "stack" },
    facts(
      [
        ["State", graph.rebuilding ? badge("reading the log again", "warn") : badge("up to date", "good")],
        ["Read up to", state.next_offset === undefined ? null : h("span", {}, "offset ", count(state.next_offset))],
        ["Newest record", state.known_at ? at(state.known_at) : h("span", { class: "faint" }, "none")],
        ["Persons", count(graph.persons)],
        ["Identifiers", count(graph.identifiers)],
        ["Touchpoints", count(graph.touchpoints)],
        ["Conversions", count(graph.conversions)],
        ["Nodes", count(graph.nodes)],
        ["Edges", count(graph.edges)],
        ["Mappings", hash(state.mappings_sha256)],
      ],
    ),
    graph.unread.length > 0 &&
      folded(`${plural(graph.unread.reduce((sum, row) => sum + row.records, 0), "record")} that the mappings could not read`, () =>
        table(
          [
            { label: "Dataset", head: "row", cell: (row) => h("span", { class: "mono" }, row.dataset) },
            { label: "Reason", cell: (row) => [title(row.reason), " ", h("code", { class: "faint" }, row.reason)] },
            { label: "Records", align: "number", cell: (row) => count(row.records) },
          ],
          graph.unread,
          { caption: "Records that could not be read", dense: true },
        ),
      ),
  );
}
