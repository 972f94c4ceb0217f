/** The datasets with a box to ask all of them in, and one dataset: what is promised of it, how much comes, what it looks like. */
import { all, post } from "../api.js";
import { axis, chart } from "../charts.js";
import { contractPath } from "../contracts.js";
import { contracts } from "../datasets.js";
import { datasetTable, freshness } from "../datasettable.js";
import { h, icon } from "../dom.js";
import { count, day, percent, plural } from "../format.js";
import { OURS, nodePath } from "../lineage.js";
import { monitorsView } from "../monitorforms.js";
import { badge, card, figure, heading, nothing, pending, table } from "../parts.js";
import { quarantinePath } from "../quarantine.js";
import { maskedView, rowsView, sqlBox } from "../sql.js";

const DAYS = 30;
const NEWEST = 10_000; // records that are looked at for gaps
const SAMPLE = 10;
const MOST_COLUMNS = 200; // that are looked at
const OWN = /^_(?!extra$)/; // what the lake adds to a record

export function datasets({ signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Datasets", { intro: "Named collections of records, each under a contract. What is accepted is in the lake within seconds." }),
    card(null, pending(() => all("/v1/datasets", "datasets", { signal }), datasetTable, { height: 220 })),
    card("SQL", sqlBox("SELECT type, event, count(*) AS records FROM events GROUP BY ALL ORDER BY records DESC LIMIT 100"), { note: SQL_NOTE }),
  );
}

const SQL_NOTE = "One SELECT over the lake, in DuckDB's SQL; tables are named as datasets. It reads, and cannot write. Ctrl+Enter runs it.";

export function dataset({ dataset: name, signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Dataset", { crumb: ["Datasets", "/console/sources/datasets"] }),
    pending(
      async () => {
        const [listed, known] = await Promise.all([all("/v1/datasets", "datasets", { signal }), contracts()]);
        return { it: listed.find((one) => one.dataset === name), contract: known.get(name) };
      },
      (found) => (found.it ? view(found, signal) : nothing("There is no such dataset.", { hint: h("a", { href: "/console/sources/datasets" }, "Show the datasets") })),
      { height: 640 },
    ),
  );
}

function view({ it, contract }, signal) {
  return h(
    "div",
    { class: "stack" },
    h(
      "div",
      { class: "contract-head" },
      h("p", { class: "verdict" }, h("code", {}, it.dataset), " ", it.contract_id ? h("a", { class: "under", href: contractPath(it.contract_id) }, `${contract?.name ?? it.contract_id} ${it.contract_version}`) : badge("no contract", "warn")),
      h("div", { class: "actions" }, h("a", { class: "button", href: importsPath(it.dataset) }, icon("upload"), "Import a file"), h("a", { class: "button", href: nodePath(`dataset:${OURS}:${it.dataset}`) }, icon("link"), "Lineage")),
    ),
    h(
      "div",
      { class: "figures" },
      figure("Records in the log", count(it.records)),
      figure("In quarantine", it.quarantined ? h("a", { href: quarantinePath({ dataset: it.dataset }) }, count(it.quarantined)) : "0", { kind: it.quarantined ? "warn" : "" }),
      figure("Last received", freshness(it.last_received_at)),
    ),
    it.records ? card(`Records received, last ${DAYS} days`, pending(() => volume(it.dataset, signal), (rows) => volumeChart(rows, signal), { height: 180 }), { note: "By day in UTC." }) : card(null, empty(it.dataset)),
    card("Monitors", monitorsView(it.dataset, signal), { note: "What the contract promises, and how the dataset compares with its own past. A breach opens an incident with its owner." }),
    it.records > 0 && [
      card("Fields", pending(() => gaps(it.dataset, signal), (found) => fieldTable(found, contract), { height: 200 }), { note: `How often each is missing in the newest ${plural(Math.min(it.records, NEWEST), "record")}.` }),
      card("Sample", pending(() => sample(it.dataset, signal), (found) => rowsView(found, { caption: "Sample" }), { height: 200 }), { note: "The newest records." }),
      card("SQL", sqlBox(`SELECT * FROM ${quoted(it.dataset)} ORDER BY _offset DESC LIMIT 100`), { note: SQL_NOTE }),
    ],
  );
}

const importsPath = (name) => `/console/sources/imports?${new URLSearchParams({ dataset: name })}`;

const empty = (name) => nothing("No record came in yet.", { hint: [h("a", { href: importsPath(name) }, "Import a file"), " or send events from a ", h("a", { href: "/console/sources" }, "source"), "."] });

const ask = (sql, signal, parameters = []) => post("/v1/sql", { sql, parameters }, { slow: true, signal });

/** Records by day of receipt; days without any are zero. */
async function volume(name, signal) {
  const days = Array.from({ length: DAYS }, (_, back) => new Date(Date.now() - (DAYS - 1 - back) * 86_400_000).toISOString().slice(0, 10));
  const { rows } = await ask(`SELECT strftime(_received_at, '%Y-%m-%d') AS day, count(*) AS records FROM ${quoted(name)} WHERE _received_at >= CAST(? AS TIMESTAMPTZ) GROUP BY 1`, signal, [`${days[0]}T00:00:00Z`]);
  const known = new Map(rows);
  return days.map((each) => [each, known.get(each) ?? 0]);
}

function volumeChart(rows, signal) {
  const most = rows.reduce((best, each) => (each[1] > best[1] ? each : best));
  const label = `Records received a day, the last ${DAYS} days; most on ${day(most[0])}: ${count(most[1])}`;
  const draw = (ink) => ({
    data: [{ type: "bar", x: rows.map(([each]) => each), y: rows.map(([, records]) => records), marker: { color: ink.accent }, hovertemplate: "%{x}: %{y:,} records<extra></extra>" }],
    layout: { bargap: 0.25, xaxis: axis(ink, { type: "date", tickformat: "%-d %b", showgrid: false }), yaxis: axis(ink, { rangemode: "tozero", tickformat: ",", nticks: 5 }) },
  });
  return chart(draw, { height: 180, label, signal });
}

/** The newest records as they came, without what the lake adds to them. */
async function sample(name, signal) {
  const answer = await ask(`SELECT * FROM ${quoted(name)} ORDER BY _offset DESC LIMIT ${SAMPLE}`, signal);
  const kept = answer.columns.map((column) => !OWN.test(column.name));
  return { ...answer, columns: answer.columns.filter((_, index) => kept[index]), rows: answer.rows.map((row) => row.filter((_, index) => kept[index])) };
}

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

/** Every column with the share of the newest records that lack it. */
async function gaps(name, signal) {
  const { columns } = await ask(`SELECT * FROM ${quoted(name)} LIMIT 0`, signal);
  const own = columns.filter((column) => !OWN.test(column.name)).slice(0, MOST_COLUMNS);
  if (!own.length) return { fields: [], masked: [] };
  const counted = own.map((column) => `count(${quoted(column.name)})`).join(", ");
  const { rows: [[total, ...present]], masked } = await ask(`SELECT count(*), ${counted} FROM (SELECT * FROM ${quoted(name)} ORDER BY _offset DESC LIMIT ${NEWEST})`, signal);
  return { fields: own.map((column, index) => ({ ...column, missing: total ? 1 - present[index] / total : 0 })), masked };
}

function fieldTable({ fields, masked }, contract) {
  const declared = new Map((contract?.columns ?? []).map((one) => [one.name, one]));
  return [
    maskedView(masked),
    table(
      [
        { label: "Field", head: "row", sort: (one) => one.name, cell: (one) => h("code", { class: "strong" }, one.name) },
        { label: "Type", cell: (one) => one.type },
        { label: "Must be there", cell: (one) => (declared.get(one.name)?.required ? "yes" : h("span", { class: "faint" }, declared.has(one.name) ? "no" : "not declared")) },
        { label: "Missing", align: "number", sort: (one) => one.missing, share: (one) => one.missing, cell: (one) => (one.missing ? percent(one.missing, 1) : h("span", { class: "faint" }, "never")) },
      ],
      fields,
      { caption: "Fields", dense: true },
    ),
  ];
}
