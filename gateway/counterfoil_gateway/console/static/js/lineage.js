/** Lineage as a drawing: which jobs read and write which datasets, or which field is made of which. */
import { canvas } from "./canvas.js";
import { h } from "./dom.js";
import { ago, count, plural, title, words } from "./format.js";
import { badge, folded, table } from "./parts.js";

/** The address of a node's page; `more` are further query parameters. */
export const nodePath = (id, more = {}) => `/console/sources/lineage?${new URLSearchParams({ node: id, ...more })}`;

export const OURS = "counterfoil"; // the namespace of our own services
const MOST_BOXES = 300; // more than that nobody can read; the nearest are drawn
const [WIDTH, HEAD, ROW] = [216, 48, 22];
const MOST_ROWS = 40;

/** Colour and word of a run's state. */
const RUNS = { COMPLETED: "good", RUNNING: "accent", FAILED: "bad", ABORTED: "warn", NEW: "plain" };

/** How a job's newest run is. */
export const runBadge = (run) => (run ? badge(words(run.state), RUNS[run.state]) : badge("no run told", "plain"));

/** Datasets and jobs; `{nodes, edges, truncated}` as the API answers, `more` are query parameters that the links keep. */
export function graphView({ nodes, edges, truncated }, { focus, more }) {
  const shown = nodes.slice(0, MOST_BOXES);
  const known = new Set(shown.map((one) => one.node_id));
  const inside = edges.filter((one) => known.has(one.source) && known.has(one.target));
  const boxes = shown.map((node) => ({ id: node.node_id, width: WIDTH, height: HEAD, element: nodeBox(node, { focus, more }) }));
  const names = new Map(nodes.map((one) => [one.node_id, one.name]));
  return h(
    "div",
    { class: "stack" },
    limits(shown.length, nodes.length, truncated),
    canvas(boxes, inside, { focus, label: `Lineage: ${plural(shown.length, "node")}, ${plural(inside.length, "edge")}` }),
    folded("As a table", () =>
      table(
        [
          { label: "From", head: "row", cell: (one) => h("code", {}, names.get(one.source) ?? one.source) },
          { label: "To", cell: (one) => h("code", {}, names.get(one.target) ?? one.target) },
          { label: "What", cell: (one) => (one.source.startsWith("job:") ? "writes" : "is read by") },
          { label: "Since", cell: (one) => ago(one.valid_from) },
        ],
        edges,
        { caption: "Edges", dense: true },
      ),
    ),
  );
}

const limits = (shown, all, truncated) =>
  (truncated || shown < all) && h("p", { class: "notice" }, shown < all ? `The nearest ${count(shown)} of ${truncated ? "more than " : ""}${count(all)} nodes are drawn. ` : "There is more than an answer holds. ", "Choose a smaller depth or one direction, or go on from another node.");

function nodeBox(node, { focus, more }) {
  const job = node.kind === "JOB";
  const here = node.node_id === focus;
  return h(
    "a",
    { class: `node ${job ? "job" : "data"}${here ? " here" : ""}`, href: nodePath(node.node_id, more), "data-end": node.node_id, "aria-current": here ? "true" : null, title: `${node.namespace}: ${node.name}` },
    h("span", { class: "node-name" }, node.name),
    h("span", { class: "node-sub" }, job && node.latest_run && h("i", { class: `run run-${node.latest_run.state.toLowerCase()}` }), described(node)),
  );
}

/** What a node is, in a few words. */
function described(node) {
  const run = node.latest_run;
  const parts = [run ? `${words(run.state)} ${ago(run.ended_at ?? run.updated_at)}` : title(node.type || node.kind)];
  if (node.dropped) parts.push("dropped");
  if (node.namespace !== OURS) parts.push(node.namespace);
  return parts.join(" · ");
}

const datasetId = ({ namespace, dataset }) => `dataset:${namespace}:${dataset}`;
const WHOLE = "(the whole record)";

/** Fields and what each is made of; `{edges, truncated}` as the API answers, `node` is the dataset in the middle, `field` the chosen one. */
export function columnsView({ edges, truncated }, { node, field, more }) {
  const datasets = new Map([[node.node_id, { name: node.name, namespace: node.namespace, fields: new Set(node.fields.map((one) => one.name)) }]]);
  for (const { source, target } of edges) {
    for (const end of [source, target]) {
      const id = datasetId(end);
      if (!datasets.has(id)) datasets.set(id, { name: end.dataset, namespace: end.namespace, fields: new Set() });
      datasets.get(id).fields.add(end.field || WHOLE);
    }
  }
  const used = new Set(edges.flatMap(({ source, target }) => [endId(source), endId(target)]));
  const shown = [...datasets].slice(0, MOST_BOXES);
  const rows = new Map(shown.map(([id, one]) => [id, chosenRows(id, [...one.fields], used)]));
  const boxes = shown.map(([id, one]) => ({ id, width: WIDTH, height: HEAD + ROW * (rows.get(id).length + (one.fields.size > rows.get(id).length ? 1 : 0)) + 6, element: columnBox(id, one, { rows: rows.get(id), here: id === node.node_id, field, more }) }));
  const level = (end) => HEAD + ROW * (rows.get(datasetId(end)).indexOf(end.field || WHOLE) + 0.5);
  const inside = edges.filter(({ source, target }) => [source, target].every((end) => rows.get(datasetId(end))?.includes(end.field || WHOLE)));
  const lines = inside.map(({ source, target, kind }) => ({ source: datasetId(source), target: datasetId(target), from: level(source), to: level(target), kind: kind.toLowerCase(), ends: [endId(source), endId(target)] }));
  return h(
    "div",
    { class: "stack" },
    limits(shown.length, datasets.size, truncated),
    h("p", { class: "legend" }, h("span", { class: "l-direct" }, h("i"), "made of"), h("span", { class: "l-indirect" }, h("i"), "bears on it, such as a filter or a join")),
    edges.length === 0 && h("p", { class: "faint" }, "Nobody told which fields are made of which here."),
    canvas(boxes, lines, { focus: node.node_id, label: `Column lineage: ${plural(shown.length, "dataset")}, ${plural(lines.length, "edge")}` }),
    edges.length > 0 && folded("As a table", () => columnTable(edges)),
  );
}

const endId = (end) => `${datasetId(end)}#${end.field || WHOLE}`;

/** The fields of a box: those with edges first to be sure that they are shown. */
function chosenRows(id, fields, used) {
  const [with_, without] = [fields.filter((one) => used.has(`${id}#${one}`)), fields.filter((one) => !used.has(`${id}#${one}`))];
  const kept = new Set([...with_, ...without].slice(0, Math.max(MOST_ROWS, with_.length)));
  return fields.filter((one) => kept.has(one));
}

function columnBox(id, { name, namespace, fields }, { rows, here, field, more }) {
  const row = (one) => h("a", { class: `column${here && one === field ? " chosen" : ""}`, "data-end": `${id}#${one}`, href: nodePath(id, one === WHOLE ? more : { ...more, field: one }), "aria-current": here && one === field ? "true" : null, title: one }, one);
  return h(
    "div",
    { class: `node data columns${here ? " here" : ""}` },
    h("a", { class: "node-head", href: nodePath(id, more) }, h("span", { class: "node-name" }, name), h("span", { class: "node-sub" }, namespace === OURS ? "dataset" : namespace)),
    rows.map(row),
    fields.size > rows.length && h("span", { class: "column faint" }, `${count(fields.size - rows.length)} more`),
  );
}

const columnTable = (edges) =>
  table(
    [
      { label: "Field", head: "row", cell: ({ target }) => h("code", {}, `${target.dataset}.${target.field || "*"}`) },
      { label: "From", cell: ({ source }) => h("code", {}, `${source.dataset}.${source.field || "*"}`) },
      { label: "How", cell: (one) => [words(one.kind), one.subtype && ` · ${words(one.subtype)}`, one.masking && [" ", badge("masked", "plain", "The value cannot be got back from the result")]] },
      { label: "Job", cell: (one) => h("code", { class: "faint" }, one.job_name) },
      { label: "Expression", cell: (one) => one.description && h("code", { class: "wrapped" }, one.description) },
    ],
    edges,
    { caption: "Column edges", dense: true },
  );
