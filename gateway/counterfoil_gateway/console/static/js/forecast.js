/** A forecast as a chart with its interval, after the days that were recorded, and as a table; its numbers open its receipt. */
import { actualDays, shiftDay } from "./actuals.js";
import { get, segment } from "./api.js";
import { axis, chart, faded } from "./charts.js";
import { markSynthetic } from "./datasets.js";
import { fill, h } from "./dom.js";
import { day, decimal, number, percent, words } from "./format.js";
import { completeness, folded, nothing, receipted, receiptLink, since, syntheticBadge, table } from "./parts.js";

const HISTORY_DAYS = 56;

/** The newest forecast with its points and its model; null when there is none. */
export async function newestForecast(signal) {
  const { forecasts } = await get("/v1/forecasts", { page_size: 1 }, signal);
  if (!forecasts.length) return null;
  const forecast = await get(`/v1/forecasts/${segment(forecasts[0].forecast_id)}`, {}, signal);
  const model = await get(`/v1/models/${segment(forecast.model_id)}`, {}, signal);
  return { forecast, model };
}

const total = (series) => series.points.reduce((sum, point) => sum + point.mean, 0);

/** A forecast: its largest series first, others by choice. */
export function forecastView(found, signal) {
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
