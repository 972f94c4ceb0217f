/** Quarantine: what broke its contract, by what is broken; the records of one group, and one record beside its findings. */
import { get, segment } from "../api.js";
import { contractPath } from "../contracts.js";
import { contracted, datasetPath } from "../datasets.js";
import { fill, h } from "../dom.js";
import { missing } from "../forms.js";
import { count, size } from "../format.js";
import { importPath } from "../imports.js";
import { at, badge, card, choice, facts, folded, heading, json, nothing, paged, pending, since, table } from "../parts.js";
import { bytesOf, faultList, marked, quarantineBadge, quarantinePath, quarantinedPath, recordName } from "../quarantine.js";
import { repairForms } from "../repair.js";
import { session } from "../session.js";
import { sourcePath } from "../sources.js";

const STATES = [["OPEN", "Open"], ["REPLAYED", "In the log"], ["DISCARDED", "Set aside"]];
const KEPT = 4 * 1024 * 1024; // bytes that the API tells of one record
const NAMES = { dataset: "Dataset", reason: "Reason", path: "Path", contract_version: "Contract version", source_id: "Source", import_id: "Import" };

export function quarantine({ query, signal, go }) {
  const of = Object.fromEntries([...query].filter(([name, value]) => value && name in NAMES));
  const state = query.get("state") || "OPEN";
  const which = choice("Which records", STATES, state, (chosen) => go(quarantinePath({ ...of, ...(chosen !== "OPEN" && { state: chosen }) })));
  const narrowed = Object.keys(of).length > 0;
  return h(
    "div",
    { class: "stack" },
    heading("Quarantine", {
      crumb: narrowed && ["All of the quarantine", quarantinePath()],
      intro: narrowed ? null : "What broke its contract waits here with its bytes and the reasons; its neighbours passed. Repair it and replay it: nothing is lost, and nothing comes twice.",
    }),
    narrowed ? records(of, { state, which, signal }) : card("By what is broken", paged((token) => get("/v1/quarantine:groups", { page_size: 100, page_token: token, state }, signal), "groups", groupTable, { height: 220, empty: nothing(state === "OPEN" ? "Nothing waits in quarantine." : "There is none.") }), { aside: which, note: "Each record under the first of its findings." }),
  );
}

const groupTable = (found) =>
  table(
    [
      { label: "What is wrong", head: "row", sort: (one) => one.reason, cell: (one) => [h("a", { href: quarantinePath({ dataset: one.dataset, reason: one.reason, path: one.path, contract_version: one.contract_version }) }, one.reason), h("div", {}, h("code", { class: "faint wrapped" }, one.path))] },
      { label: "Dataset", sort: (one) => one.dataset, cell: (one) => (one.dataset ? h("a", { href: datasetPath(one.dataset) }, h("code", {}, one.dataset)) : h("span", { class: "faint" }, "not mapped")) },
      { label: "Contract", cell: (one) => one.contract_version || h("span", { class: "faint" }, "none") },
      { label: "Records", align: "number", sort: (one) => one.records, cell: (one) => count(one.records) },
      { label: "First", align: "number", sort: (one) => one.first_received_at, cell: (one) => at(one.first_received_at) },
      { label: "Last", align: "number", sort: (one) => one.last_received_at, cell: (one) => since(one.last_received_at) },
      { label: "", cell: (one) => h("a", { href: quarantinedPath(one.example_quarantine_id) }, "Show one") },
    ],
    found,
    { caption: "Groups", sorted: { column: 3, down: true } },
  );

/** The records that have all of these, and what can be done with all of them. */
function records(of, { state, which, signal }) {
  const place = h("div");
  const empty = nothing(state === "OPEN" ? "None of them is open." : "There is none.");
  const read = () => fill(place, paged((token) => get("/v1/quarantine", { page_size: 25, page_token: token, ...of, state }, signal), "quarantined_records", list, { height: 160, empty }));
  read();
  return h(
    "div",
    { class: "stack" },
    card(null, facts(Object.entries(of).map(([name, value]) => [NAMES[name], linked(name, value)]), { columns: 2 })),
    card("Records", place, { aside: which }),
    state === "OPEN" && card("All of them", pending(() => begun(of, signal), (found) => bulk(found, of, read), { height: 120 }), { note: "What is done here is done to every open record that the above describes, not only to those that are shown." }),
  );
}

const SOURCE = /^[0-9a-f-]{36}$/; // others are our own: the API, imports

function linked(name, value) {
  if (name === "source_id" && SOURCE.test(value)) return h("a", { href: sourcePath(value) }, h("code", {}, value));
  if (name === "import_id") return h("a", { href: importPath(value) }, h("code", {}, value));
  if (name === "dataset") return h("a", { href: datasetPath(value) }, h("code", {}, value));
  return h("code", { class: "wrapped" }, value);
}

/** What the forms need to know: where records can go, what is wrong with the newest, and whether this key may. */
async function begun(of, signal) {
  const [datasets, { quarantined_records: [newest] }, { scopes }] = await Promise.all([contracted(signal), get("/v1/quarantine", { ...of, state: "OPEN", page_size: 1 }, signal), session()]);
  return { datasets, newest, may: scopes.includes("ingest.write") };
}

function bulk({ datasets, newest, may }, of, done) {
  if (!may) return missing("ingest.write");
  if (!newest) return h("p", { class: "faint" }, "There is nothing to do.");
  return repairForms({ filter: of }, { findings: newest.findings, datasets, done });
}

const list = (found) =>
  table(
    [
      { label: "Record", head: "row", cell: (one) => h("a", { href: quarantinedPath(one.quarantine_id) }, recordName(one.record_id)) },
      { label: "What is wrong", cell: (one) => faultList(one.findings, 3) },
      { label: "Received", cell: (one) => at(one.received_at) },
      { label: "Dataset", cell: (one) => h("code", {}, one.dataset || "not mapped") },
      { label: "Contract", cell: (one) => `${one.contract_id} ${one.contract_version}` },
      { label: "", cell: (one) => [quarantineBadge(one.state), one.repaired_at && one.state === "OPEN" && [" ", badge("repaired", "accent")]] },
    ],
    found,
    { caption: "Quarantined records", dense: true },
  );

const IN_THE_LOG = new Set(["ACCEPTED", "DUPLICATE"]);

/** One record: what is wrong beside where, its bytes, and the repair. */
export function quarantined({ quarantine_id: id, signal, go }) {
  return h(
    "div",
    { class: "stack" },
    heading("Quarantined record", { crumb: ["Quarantine", quarantinePath()] }),
    pending(
      async () => {
        const [it, datasets, { scopes }] = await Promise.all([get(`/v1/quarantine/${segment(id)}`, {}, signal), contracted(signal), session()]);
        return { it, datasets, may: scopes.includes("ingest.write") };
      },
      (found) => view(found, (verdicts = []) => verdicts.every((one) => IN_THE_LOG.has(one.outcome)) && go(quarantinedPath(id), { replace: true })),
      { height: 560, gone: () => nothing("There is no such record in quarantine.", { hint: h("a", { href: quarantinePath() }, "Show what is in quarantine") }) },
    ),
  );
}

/** The bytes themselves: at once when there is nothing else to show. */
function arrived(it) {
  const cut = it.raw_bytes > KEPT;
  const shown = () => [h("pre", { class: "json", tabindex: "0" }, bytesOf(it.raw, { cut })), cut && h("p", { class: "faint" }, `The first ${size(KEPT)} of them.`)];
  return it.record === null ? shown() : folded(`The bytes as they arrived (${size(it.raw_bytes)})`, () => h("div", { class: "stack" }, shown()));
}

const SHOWN = 12;

const faults = (findings) => [
  faultList(findings.slice(0, SHOWN)),
  findings.length > SHOWN && folded(`The others (${findings.length - SHOWN})`, () => faultList(findings.slice(SHOWN))),
];

function view({ it, datasets, may }, again) {
  const open = it.state !== "REPLAYED";
  return h(
    "div",
    { class: "stack" },
    h(
      "div",
      { class: "grid" },
      h(
        "div",
        { class: "stack span-5" },
        card("What is wrong", it.findings.length ? faults(it.findings) : h("p", { class: "faint" }, "Nothing is known."), { aside: quarantineBadge(it.state) }),
        card("About it", facts([
          ["Record", it.record_id ? h("code", {}, it.record_id) : "without id"],
          ["Dataset", it.dataset ? h("a", { href: datasetPath(it.dataset) }, h("code", {}, it.dataset)) : "not mapped"],
          ["Contract", it.contract_id && h("a", { href: contractPath(it.contract_id, it.contract_version) }, `${it.contract_id} ${it.contract_version}`)],
          ["Received", at(it.received_at)],
          ["Source", it.source_id && linked("source_id", it.source_id)],
          ["Import", it.import_id && linked("import_id", it.import_id)],
          ["Trace", it.trace_id && h("code", { class: "trace" }, it.trace_id)],
          ["Repaired", it.repaired_at && h("span", {}, at(it.repaired_at), ` by ${it.repaired_by}`)],
          [it.state === "DISCARDED" ? "Set aside" : "Replayed", it.closed_at && h("span", {}, at(it.closed_at), ` by ${it.closed_by}`)],
          ["Why", it.discard_reason],
          ["Offset", it.position && count(it.position.offset)],
        ])),
      ),
      h(
        "div",
        { class: "stack span-7" },
        card(it.record === null ? "The bytes as they arrived" : "The record", h("div", { class: "stack" }, it.record !== null && marked(it.record, it.findings), arrived(it)), { note: it.record === null ? "They are no record." : "As its protocol or mapping made it of the bytes." }),
        it.repaired_at && card("As repaired", json(it.repaired), { note: it.repaired_dataset && `It goes to ${it.repaired_dataset}.` }),
      ),
    ),
    open && card("Repair", may ? repairForms({ quarantine_ids: [it.quarantine_id] }, { findings: it.findings, datasets, done: again }) : missing("ingest.write"), { note: "The bytes that arrived stay as they are, whatever is done here." }),
  );
}
