/** From records that no contract plans for to one that does: which there are, what they look like, and the document to finish. */
import { all, get, post } from "../api.js";
import { finished, profileView } from "../checks.js";
import { fill, h, icon } from "../dom.js";
import { count, plural } from "../format.js";
import { at, badge, card, facts, heading, nothing, paged, pending, problemBox, since, stateBadge, table } from "../parts.js";

const UNPLANNED = "unplanned";
const SEEN = `SELECT json_extract_string(_extra, '$.type') AS type, json_extract_string(_extra, '$.event') AS event,
count(*) AS records, max(_received_at) AS last FROM unplanned GROUP BY ALL ORDER BY records DESC LIMIT 200`;

const editPath = (parameters = {}) => `/console/sources/drafts/edit${Object.keys(parameters).length ? `?${new URLSearchParams(parameters)}` : ""}`;
const profilePath = (id) => `/console/sources/drafts/profile?${new URLSearchParams({ check: id })}`;

export function drafts({ signal, go }) {
  const begin = (subject) => describe(subject, { signal, go });
  return h(
    "div",
    { class: "stack" },
    heading("Drafts", {
      intro: "Records that no contract plans for are kept. Look at what came in, and finish the contract that is drafted from it.",
      actions: h("a", { class: "button", href: editPath() }, icon("edit"), "Begin with an empty one"),
    }),
    card("Unplanned events", pending(() => unplanned(signal), (found) => eventTable(found, begin), { height: 220 }), { note: "Events that no mapping of their source names." }),
    card("Datasets without a contract", pending(() => all("/v1/datasets", "datasets", { signal }), (found) => datasetTable(found, begin), { height: 80 })),
    card("Looked at before", paged((token) => get("/v1/checks", { page_size: 20, page_token: token }, signal), "checks", checkTable, { height: 120, empty: nothing("Nothing was looked at yet.") }), { note: "Descriptions of records, and contracts that were tried on some; the newest 200 are kept." }),
  );
}

/** The unplanned events by type and name. */
async function unplanned(signal) {
  const datasets = await all("/v1/datasets", "datasets", { signal });
  if (!datasets.some((one) => one.dataset === UNPLANNED && one.records)) return [];
  const { rows } = await post("/v1/sql", { sql: SEEN }, { slow: true, signal });
  return rows.map(([type, event, records, last]) => ({ type: type ?? "", event: event ?? "", records, last }));
}

/** A button that has records described and goes to what was found. */
function describe(subject, { signal, go }) {
  const trouble = h("div", { role: "status" });
  const button = h("button", { type: "button", class: "button", onclick: run, "aria-label": `Describe ${subject.event || subject.type || subject.dataset}` }, "Describe");
  async function run() {
    button.disabled = true;
    try {
      const asked = await post("/v1/checks", { profile: subject }, { signal });
      go(profilePath(asked.check_id));
    } catch (error) {
      if (error.name !== "AbortError") fill(trouble, problemBox(error));
      button.disabled = false;
    }
  }
  return [button, trouble];
}

const eventTable = (found, begin) =>
  table(
    [
      { label: "Event", head: "row", sort: (one) => one.event, cell: (one) => one.event || h("span", { class: "faint" }, "without a name") },
      { label: "Type", sort: (one) => one.type, cell: (one) => h("code", {}, one.type || "—") },
      { label: "Records", align: "number", sort: (one) => one.records, cell: (one) => count(one.records) },
      { label: "Last received", align: "number", sort: (one) => one.last, cell: (one) => since(one.last) },
      { label: "", cell: (one) => begin({ dataset: UNPLANNED, type: one.type, event: one.event }) },
    ],
    found,
    { caption: "Unplanned events", empty: nothing("Every event that came in was planned for.", { hint: "A source whose mappings name only some events sends the others here." }) },
  );

function datasetTable(found, begin) {
  const without = found.filter((one) => !one.contract_id && one.dataset !== UNPLANNED && one.records);
  return table(
    [
      { label: "Dataset", head: "row", cell: (one) => h("span", { class: "mono" }, one.dataset) },
      { label: "Records", align: "number", cell: (one) => count(one.records) },
      { label: "Last received", align: "number", cell: (one) => since(one.last_received_at) },
      { label: "", cell: (one) => begin({ dataset: one.dataset }) },
    ],
    without,
    { caption: "Datasets without a contract", empty: h("p", { class: "faint" }, "There is none.") },
  );
}

const checkTable = (found) =>
  table(
    [
      { label: "What", head: "row", cell: (one) => (one.profile ? h("a", { href: profilePath(one.check_id) }, named(one.profile)) : h("span", {}, `${one.trial.contract_id} ${one.trial.version} tried on recent records`)) },
      { label: "State", cell: (one) => [stateBadge(one.state), one.error_detail && h("div", { class: "faint" }, one.error_detail)] },
      { label: "Asked by", cell: (one) => one.created_by },
      { label: "When", align: "number", cell: (one) => at(one.created_at) },
    ],
    found,
    { caption: "Checks" },
  );

const named = (subject) => [subject.event || subject.type || "records", ` of ${subject.dataset}`].join("");

/** What described records look like, and the form that drafts a contract from them. */
export function profile({ query, signal, go }) {
  const id = query.get("check") ?? "";
  return h(
    "div",
    { class: "stack" },
    heading("Description", { crumb: ["Drafts", "/console/sources/drafts"], intro: "What recent records look like. Values are told only of fields that have few and are not personal." }),
    pending(() => finished(id, signal), (found) => described(found, { signal, go }), { height: 520, gone: () => nothing("There is no such check; the newest 200 are kept.", { hint: h("a", { href: "/console/sources/drafts" }, "Describe records again") }) }),
  );
}

function described(found, { go }) {
  if (!found.profiled) return nothing("This check tried a contract; it describes no records.");
  const { profiled } = found;
  return h(
    "div",
    { class: "stack" },
    profiled.records > 0 && card("Draft a contract from it", draftForm(found, go), { note: "Types, formats, values and gaps as they were seen. You finish it: nothing is kept until you submit." }),
    card(h("span", {}, named(found.profile), " ", badge(plural(profiled.records, "record"), "accent")), profileView(profiled), { note: `The newest ones, offsets ${count(profiled.from_offset)} to ${count(Math.max(profiled.from_offset, profiled.next_offset - 1))}.` }),
    card(null, facts([["Asked by", found.created_by], ["Asked", at(found.created_at)], ["Finished", at(found.finished_at)], ["Check", h("code", {}, found.check_id)]], { columns: 2 })),
  );
}

function draftForm(found, go) {
  const subject = found.profile;
  const plain = (subject.event || subject.type || subject.dataset).toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^[^a-z]+|_+$/g, "") || "records";
  const field = (name, value, pattern, tip) => h("input", { name, value, pattern, required: true, maxlength: "200", title: tip, autocomplete: "off" });
  const id = field("contract_id", plain.replaceAll("_", "-"), "[A-Za-z0-9][A-Za-z0-9._~:@\\-]{0,199}", "Letters, digits and ._~:@-");
  const owner = field("owner", "", null, "The team that answers for it");
  const dataset = field("dataset", subject.dataset === UNPLANNED ? plain.slice(0, 63) : subject.dataset, "[a-z][a-z0-9_]{0,62}", "Lower case, digits and _");
  const submit = (event) => {
    event.preventDefault();
    go(editPath({ check: found.check_id, contract_id: id.value, owner: owner.value, dataset: dataset.value }));
  };
  return h("form", { class: "form", onsubmit: submit }, h("label", {}, "Contract", id), h("label", {}, "Dataset", dataset), h("label", { class: "grow" }, "Owner (a team)", owner), h("button", { type: "submit", class: "button primary" }, "Draft"));
}
