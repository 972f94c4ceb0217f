/** Overview: what came in and how fresh it is, what is forecast from it, which models serve, how far the graph is. */
import { actualDays, shiftDay } from "../actuals.js";
import { all, get, segment } from "../api.js";
import { axis, chart, faded } from "../charts.js";
import { contracts, markSynthetic, synthetic } from "../datasets.js";
import { fill, h } from "../dom.js";
import { ago, count, day, decimal, number, percent, plural, shareOf, title, words } from "../format.js";
import { badge, card, choice, completeness, facts, figure, folded, hash, heading, nothing, pending, receipted, receiptLink, since, syntheticBadge, table, tierBadge, at } from "../parts.js";
import { follow } from "../tail.js";

const HISTORY_DAYS = 56;
const STALE_SECONDS = 2 * 86_400;

export function overview({ signal }) {
  const datasets = once(() => all("/v1/datasets", "datasets", { signal }));
  const models = once(() => all("/v1/models", "models", { signal }));
  const graph = once(() => get("/v1/graph", {}, signal));
  return h(
    "div",
    { class: "stack" },
    heading("Overview", { intro: "What came in, how fresh it is, and what is made of it." }),
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
      card("Datasets", pending(datasets, (found) => datasetsView(found, signal), { height: 220 }), { note: "Every record lies under a contract; what breaks it waits in quarantine with the reason." }),
    ),
  );
}

/** Ask once, however many places show the answer; after a failure, ask anew. */
function once(ask) {
  let answer;
  return () => {
    answer ??= ask().catch((error) => {
      answer = undefined;
      throw error;
    });
    return answer;
  };
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
    quarantined(count(broken), broken ? `${shareOf(broken / (total + broken))} of what came in` : "nothing broke its contract", broken ? "warn" : null);
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

async function newestForecast(signal) {
  const { forecasts } = await get("/v1/forecasts", { page_size: 1 }, signal);
  if (!forecasts.length) return null;
  const forecast = await get(`/v1/forecasts/${segment(forecasts[0].forecast_id)}`, {}, signal);
  const model = await get(`/v1/models/${segment(forecast.model_id)}`, {}, signal);
  return { forecast, model };
}

const total = (series) => series.points.reduce((sum, point) => sum + point.mean, 0);

function forecastView(found, signal) {
  if (!found) {
    return nothing("No forecast yet.", {
      hint: "Train a model, make a version the champion, then ask for a forecast. The demo does all of it:",
      commands: ["counterfoil demo"],
    });
  }
  const { forecast, model } = found;
  const ranked = [...forecast.series].filter((series) => series.points.length).sort((a, b) => total(b) - total(a));
  if (!ranked.length) return nothing("The newest forecast holds no series.", { hint: completeness(forecast.completeness) });
  const drawing = h("div");
  const marks = h("span");
  markSynthetic(marks, forecast.snapshots.map((snapshot) => snapshot.dataset), syntheticBadge);
  const draw = (name) => fill(drawing, seriesView(forecast, model, ranked.find((series) => series.series === name), signal));
  const picker =
    ranked.length > 1 &&
    h(
      "label",
      { class: "inline" },
      h("span", { class: "faint" }, "Series "),
      h("select", { "aria-label": "Series", onchange: (event) => draw(event.target.value) }, ranked.map((series) => h("option", { value: series.series }, series.series || "all"))),
    );
  draw(ranked[0].series);
  return [
    h(
      "div",
      { class: "forecast-head" },
      h("p", {}, h("span", { class: "strong" }, model.display_name || model.model_id), h("span", { class: "faint" }, ` version ${forecast.model_version}, `), h("span", { class: "faint" }, since(forecast.created_at)), marks),
      h("div", { class: "aside" }, picker, receiptLink(forecast.receipt_id)),
    ),
    drawing,
    h("div", { class: "forecast-foot" }, completeness(forecast.completeness)),
  ];
}

function seriesView(forecast, model, series, signal) {
  const sum = total(series);
  const low = Math.min(...series.points.map((point) => point.lower));
  const place = h("div", { class: "plot", "aria-busy": "true" }, h("div", { class: "skeleton", "aria-hidden": "true" }));
  const plot = (actual) => {
    place.removeAttribute("aria-busy");
    fill(
      place,
      chart((ink) => forecastPlot(ink, series, actual), {
        height: 262, signal,
        label: `Forecast of ${series.series || model.display_name}: ${series.points.length} days from ${series.points[0].day} on, on average ${number(sum / series.points.length)} a day, the interval from ${number(low)} up.`,
      }),
    );
  };
  const note = h("span", { class: "faint" });
  actualDays(model, forecast, { series: series.series, from: shiftDay(series.last_day, 1 - HISTORY_DAYS), until: series.last_day, signal }).then(
    (days) => {
      plot(days);
      if (!days) note.textContent = "The days before are not shown: the series is cut from nested fields.";
    },
    (error) => {
      if (error.name === "AbortError") return;
      plot(null);
      note.textContent = `The days before could not be read: ${error.reason || error.message}`;
    },
  );
  return [
    h(
      "p",
      { class: "forecast-sum" },
      `Next ${series.points.length} days: `, receipted(number(sum), forecast.receipt_id), ` in all, `, receipted(number(series.points[0].mean), forecast.receipt_id, { quiet: true }), ` on ${day(series.points[0].day)} `,
      h("span", { class: "faint" }, `(${percent(forecast.coverage)} interval ${number(series.points[0].lower)} to ${number(series.points[0].upper)})`),
    ),
    place,
    h("div", { class: "legend" }, h("span", {}, h("i", { class: "l-actual" }), "recorded"), h("span", {}, h("i", { class: "l-mean" }), `forecast, ${words(series.method)}`), h("span", {}, h("i", { class: "l-band band" }), `${percent(forecast.coverage)} interval`), note),
    folded("Show as a table", () => pointsTable(forecast, series)),
  ];
}

function pointsTable(forecast, series) {
  return table(
    [
      { label: "Day", head: "row", cell: (point) => day(point.day) },
      { label: "Expected", align: "number", cell: (point) => receipted(decimal(point.mean), forecast.receipt_id, { quiet: true }) },
      { label: "Lower", align: "number", cell: (point) => receipted(decimal(point.lower), forecast.receipt_id, { quiet: true }) },
      { label: "Upper", align: "number", cell: (point) => receipted(decimal(point.upper), forecast.receipt_id, { quiet: true }) },
    ],
    series.points,
    { caption: "The forecast's days", dense: true },
  );
}

function forecastPlot(ink, series, actual) {
  const days = series.points.map((point) => point.day);
  const last = actual?.at(-1);
  const join = last ? [last[0]] : [];
  const at0 = last ? [last[1]] : [];
  const hover = "%{y:,.2f}<extra>%{fullData.name}</extra>";
  const data = [
    { name: "upper", x: [...join, ...days], y: [...at0, ...series.points.map((point) => point.upper)], mode: "lines", line: { width: 0 }, hovertemplate: hover },
    { name: "lower", x: [...join, ...days], y: [...at0, ...series.points.map((point) => point.lower)], mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: faded(ink.accent, 0.16), hovertemplate: hover },
    { name: "forecast", x: [...join, ...days], y: [...at0, ...series.points.map((point) => point.mean)], mode: "lines", line: { color: ink.accent, width: 2.2 }, hovertemplate: hover },
  ];
  if (actual) data.unshift({ name: "recorded", x: actual.map(([on]) => on), y: actual.map(([, amount]) => amount), mode: "lines", line: { color: ink["ink-2"], width: 1.5 }, hovertemplate: hover });
  return {
    data,
    layout: {
      margin: { l: 52, r: 8, t: 8, b: 28 },
      hovermode: "x unified",
      xaxis: axis(ink, { type: "date", showgrid: false, tickformat: "%-d %b", hoverformat: "%a %-d %b %Y", ticks: "outside", ticklen: 4 }),
      yaxis: axis(ink, { rangemode: "tozero", tickformat: ",~s", nticks: 6, showline: false }),
      shapes: last ? [{ type: "line", x0: last[0], x1: last[0], yref: "paper", y0: 0, y1: 1, line: { color: ink["line-strong"], width: 1, dash: "dot" } }] : [],
    },
  };
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

async function datasetsView(datasets, signal) {
  if (!datasets.length) {
    return nothing("Nothing came in yet.", {
      hint: "Import a file, send an event, or run the demo:",
      commands: ["counterfoil import sales.csv --dataset sales", "counterfoil demo"],
    });
  }
  const known = await contracts();
  const made = new Set();
  await Promise.all(datasets.map(async ({ dataset }) => (await synthetic([dataset])) && made.add(dataset)));
  const broken = datasets.reduce((sum, dataset) => sum + dataset.quarantined, 0);
  const shown = table(
    [
      { label: "Dataset", head: "row", sort: (row) => row.dataset, cell: (row) => [h("span", { class: "dataset-name mono" }, row.dataset), made.has(row.dataset) && [" ", syntheticBadge()]] },
      { label: "Contract", sort: (row) => row.contract_id, cell: (row) => (row.contract_id ? [known.get(row.dataset)?.name ?? row.contract_id, " ", h("span", { class: "faint" }, row.contract_version)] : badge("no contract", "warn")) },
      { label: "Records", align: "number", sort: (row) => row.records, cell: (row) => count(row.records) },
      { label: "Quarantined", align: "number", sort: (row) => row.quarantined, cell: (row) => (row.quarantined ? badge(count(row.quarantined), "warn") : h("span", { class: "faint" }, "0")) },
      { label: "Last received", align: "number", sort: (row) => row.last_received_at ?? "", cell: (row) => freshness(row.last_received_at) },
    ],
    datasets,
    { caption: "Datasets", sorted: { column: 2, down: true } },
  );
  return [shown, broken > 0 && folded(`What is in quarantine (${count(broken)})`, () => pending(() => get("/v1/quarantine", { page_size: 20 }, signal), quarantineView))];
}

/** The newest quarantined records with what is wrong with each; their values are not shown. */
function quarantineView({ quarantined_records: found, next_page_token: more }) {
  return [
    table(
      [
        { label: "Received", cell: (one) => at(one.received_at) },
        { label: "Dataset", cell: (one) => h("span", { class: "mono" }, one.dataset || "not mapped") },
        { label: "Record", cell: (one) => h("code", {}, one.record_id || "without id") },
        { label: "What is wrong", head: "row", cell: (one) => one.findings.map((finding) => h("div", {}, finding.detail, " ", h("code", { class: "faint" }, `${finding.reason} ${finding.path}`))) },
        { label: "Contract", cell: (one) => `${one.contract_id} ${one.contract_version}` },
      ],
      found,
      { caption: "Quarantined records", dense: true },
    ),
    more && h("p", { class: "faint" }, "These are the newest 20; GET /v1/quarantine lists all."),
  ];
}

function freshness(iso) {
  const shown = since(iso);
  if (iso && (Date.now() - new Date(iso)) / 1000 > STALE_SECONDS) shown.classList.add("stale");
  return shown;
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
