/** Lineage: find a dataset or a job, see what it comes from and what is made of it, as it is or as it was. */
import { get } from "../api.js";
import { contracts } from "../datasets.js";
import { contractPath } from "../contracts.js";
import { h, icon } from "../dom.js";
import { count, dayBegins, title } from "../format.js";
import { impactCard } from "../impact.js";
import { OURS, columnsView, graphView, nodePath, runBadge } from "../lineage.js";
import { at, badge, card, choice, facts, folded, heading, nothing, paged, pending, receiptLink, table } from "../parts.js";

const DEPTHS = ["1", "2", "4", "6", "10", "20"];
const DEPTH = "4";
const DIRECTIONS = [["", "Both ways"], ["UPSTREAM", "Comes from"], ["DOWNSTREAM", "Made of it"]];
const LEVELS = [["", "Datasets and jobs"], ["columns", "Fields"]];
const KINDS = [["", "All"], ["DATASET", "Datasets"], ["JOB", "Jobs"]];

export const lineage = (context) => (context.query.get("node") ? one(context) : many(context));

function many({ query, signal, go }) {
  const kind = query.get("kind") ?? "";
  const text = query.get("query") ?? "";
  const address = (parameters) => `/console/sources/lineage?${new URLSearchParams(Object.entries(parameters).filter(([, value]) => value))}`;
  const words = h("input", { type: "search", name: "query", value: text, placeholder: "part of a name", "aria-label": "Name", autocomplete: "off", maxlength: "200" });
  return h(
    "div",
    { class: "stack" },
    heading("Lineage", { intro: "Which jobs read and write which datasets, field by field: what our own services did, and what OpenLineage producers told." }),
    card(
      "Datasets and jobs",
      paged((token) => get("/v1/lineage/nodes", { page_size: 50, page_token: token, kind, query: text }, signal), "nodes", nodeTable, {
        height: 420,
        empty: nothing(text || kind ? "Nothing fits." : "Nothing is known yet.", { hint: text || kind ? h("a", { href: "/console/sources/lineage" }, "Show all") : "An import, a training and a forecast each tell what they read and wrote; so does any OpenLineage client at /api/v1/lineage." }),
      }),
      {
        aside: [
          h("form", { class: "form", onsubmit: (event) => (event.preventDefault(), go(address({ kind, query: words.value }))) }, words, h("button", { type: "submit", class: "button" }, icon("search"), "Find")),
          choice("Which", KINDS, kind, (chosen) => go(address({ kind: chosen, query: text }))),
        ],
      },
    ),
  );
}

const nodeTable = (found) =>
  table(
    [
      { label: "Name", head: "row", cell: (node) => [h("a", { href: nodePath(node.node_id) }, h("code", {}, node.name)), node.dropped && [" ", badge("dropped", "warn")], node.description && h("div", { class: "faint" }, node.description)] },
      { label: "What", cell: (node) => title(node.type || node.kind) },
      { label: "Namespace", cell: (node) => (node.namespace === OURS ? h("span", { class: "faint" }, "ours") : h("code", {}, node.namespace)) },
      { label: "Newest run", cell: (node) => (node.kind === "JOB" ? runBadge(node.latest_run) : h("span", { class: "faint" }, "—")) },
      { label: "Last told of", align: "number", cell: (node) => at(node.updated_at) },
    ],
    found,
    { caption: "Datasets and jobs" },
  );

function one({ query, signal, go }) {
  const id = query.get("node");
  const chosen = Object.fromEntries(["depth", "direction", "level", "valid", "known"].map((name) => [name, query.get(name) ?? ""]).filter(([, value]) => value));
  const field = query.get("field") ?? "";
  const go_ = (change) => go(nodePath(id, Object.fromEntries(Object.entries({ ...chosen, field, ...change }).filter(([, value]) => value))));
  const asked = { depth: chosen.depth || DEPTH, direction: chosen.direction, as_of: moment(chosen.valid), known_at: moment(chosen.known) };
  return h(
    "div",
    { class: "stack" },
    heading("Lineage", { crumb: ["Datasets and jobs", "/console/sources/lineage"], intro: h("code", {}, id) }),
    controls({ ...chosen, isDataset: id.startsWith("dataset:") }, go_),
    pending(
      async () => {
        const graph = await get("/v1/lineage", { node_id: id, ...asked }, signal);
        const node = graph.nodes.find((each) => each.node_id === id);
        const columns = chosen.level && node?.kind === "DATASET" && (await get("/v1/lineage/columns", { namespace: node.namespace, dataset: node.name, field, ...asked }, signal));
        return { graph, node, columns };
      },
      (found) => view(found, { id, field, chosen, signal }),
      { height: 560, gone: () => nothing("Nothing is known of this node.", { hint: h("a", { href: "/console/sources/lineage" }, "Find another") }) },
    ),
  );
}

/** RFC 3339 of a time that a person chose, in the workspace's timezone. */
const moment = (text) => (/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$/.test(text ?? "") ? dayBegins(text) : "");

function controls({ depth, direction, level, valid, known, isDataset }, go) {
  const select = h("select", { onchange: (event) => go({ depth: event.target.value }) }, DEPTHS.map((each) => h("option", { value: each, selected: each === (depth || DEPTH) }, each)));
  const time = (label, name, value, tip) => h("label", { title: tip }, label, h("input", { type: "datetime-local", name, value, max: "9999-12-31T23:59", onchange: (event) => go({ [name]: event.target.value }) }));
  return h(
    "div",
    { class: "form" },
    isDataset && choice("Level", LEVELS, level ?? "", (chosen) => go({ level: chosen, field: "" })),
    choice("Direction", DIRECTIONS, direction ?? "", (chosen) => go({ direction: chosen })),
    h("label", {}, "Depth", select),
    time("As it was at", "valid", valid, "Which edges were valid then; empty = now"),
    time("As it was known at", "known", known, "What had been told by then; empty = now"),
    (valid || known) && h("button", { type: "button", class: "button", onclick: () => go({ valid: "", known: "" }) }, "Now"),
  );
}

function view({ graph, node, columns }, { id, field, chosen, signal }) {
  if (!node) return nothing("Nothing was known of this node then.", { hint: h("a", { href: nodePath(id) }, "Show it as it is now") });
  return h(
    "div",
    { class: "stack" },
    card(null, columns ? columnsView(columns, { node, field, more: chosen }) : graphView(graph, { focus: id, more: chosen })),
    h("div", { class: "grid" }, card(h("span", {}, node.kind === "JOB" ? "Job " : "Dataset ", h("code", {}, node.name), field && [", field ", h("code", {}, field)]), nodeFacts(node), { span: 12 })),
    node.kind === "DATASET" && node.fields.length > 0 && card("Fields", folded(`${count(node.fields.length)} as told last`, () => fieldTable(node, chosen), { open: node.fields.length <= 20 })),
    node.kind === "DATASET" && impactCard({ namespace: node.namespace, dataset: node.name, fields: field ? [field] : [], as_of: moment(chosen.valid), known_at: moment(chosen.known) }, { signal, note: field ? `If ${field} changes.` : "If anything of it changes; choose a field for less." }),
  );
}

function nodeFacts(node) {
  const contract = h("span", { class: "faint" }, "…");
  if (node.kind === "DATASET" && node.namespace === OURS) contracts().then((known) => contract.replaceWith(known.has(node.name) ? h("a", { href: contractPath(known.get(node.name).id) }, known.get(node.name).name) : h("span", { class: "faint" }, "none")));
  const run = node.latest_run;
  return facts(
    [
      ["What", title(node.type || node.kind)],
      ["Namespace", h("code", {}, node.namespace)],
      ["For", node.description],
      node.tags.length > 0 && ["Tags", node.tags.map((tag) => [badge(tag), " "])],
      node.kind === "DATASET" && node.namespace === OURS ? ["Contract", contract] : null,
      ["First told of", at(node.created_at)],
      ["Last told of", at(node.updated_at)],
      node.version && ["Version", h("code", {}, node.version)],
      run && ["Newest run", [runBadge(run), " ", at(run.ended_at ?? run.updated_at)]],
      run?.receipt_id && ["Its output", receiptLink(run.receipt_id)],
    ],
    { columns: 2 },
  );
}

const fieldTable = (node, chosen) =>
  table(
    [
      { label: "Field", head: "row", cell: (one) => h("a", { href: nodePath(node.node_id, { ...chosen, level: "columns", field: one.name }) }, h("code", {}, one.name)) },
      { label: "Type", cell: (one) => one.type },
      { label: "For", cell: (one) => one.description },
      { label: "Tags", cell: (one) => one.tags.map((tag) => [badge(tag), " "]) },
    ],
    node.fields,
    { caption: "Fields", dense: true },
  );
