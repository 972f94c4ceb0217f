/** One contract: its versions and what is next for the one shown, its fields and who reads them, its document, what was done to it. */
import { all, get, segment } from "../api.js";
import { fieldChanges, levelBadge } from "../comparisons.js";
import { consumersView } from "../consumers.js";
import { comparisonPath, contractPath, editorPath, versionBadges } from "../contracts.js";
import { append, h, icon } from "../dom.js";
import { count, plural, title, words } from "../format.js";
import { impactCard } from "../impact.js";
import { OURS, nodePath } from "../lineage.js";
import { fromContract, monitorTable } from "../monitors.js";
import { nextSteps } from "../nextsteps.js";
import { at, badge, card, facts, folded, hash, heading, nothing, paged, pending, table } from "../parts.js";
import { changeCard } from "./changes.js";

const MOST_VERSIONS = 10_000;
const MOST_FIELDS = 2_000; // that are shown

export function contract({ contract_id: id, query, signal, go }) {
  const path = `/v1/contracts/${segment(id)}`;
  const name = h("span", {}, id);
  return h(
    "div",
    { class: "stack" },
    heading("Contract", { crumb: ["Contracts", "/console/sources/contracts"], intro: name }),
    pending(
      async () => {
        const [it, versions] = await Promise.all([get(path, {}, signal), all(`${path}/versions`, "versions", { signal, limit: MOST_VERSIONS })]);
        const wanted = query.get("version") || it.active_version || it.latest_version;
        return { it, versions, shown: await get(`${path}/versions/${segment(wanted)}`, {}, signal) };
      },
      (found) => view(found, { path, signal, go }),
      { height: 640, gone: ({ reason }) => gone(id, reason) },
    ),
  );
}

const gone = (id, reason) =>
  reason === "VERSION_NOT_FOUND"
    ? nothing("The contract has no such version.", { hint: h("a", { href: contractPath(id) }, "Show the version in force") })
    : nothing("There is no such contract.", { hint: h("a", { href: "/console/sources/contracts" }, "Show the contracts") });

function view({ it, versions, shown }, { path, signal, go }) {
  const owner = shown.compiled.find((one) => one.owner)?.owner;
  const waiting = versions.filter((one) => one.change_id);
  const again = () => go(contractPath(it.contract_id, shown.version), { replace: true });
  return h(
    "div",
    { class: "stack" },
    h(
      "div",
      { class: "contract-head" },
      h("p", { class: "verdict" }, it.display_name || it.contract_id, " ", it.active_version ? badge(`${it.active_version} in force`, "good") : badge("none in force", "warn"), it.shipped && [" ", badge("shipped", "plain", "It came with the platform")], owner && h("span", { class: "faint" }, ` Owner ${owner}`)),
      h("div", { class: "actions" }, h("a", { class: "button", href: editorPath(it.contract_id, shown.version) }, icon("edit"), "Write a new version")),
    ),
    waiting.map((one) => pending(() => get(`/v1/changes/${segment(one.change_id)}`, {}, signal), (found) => changeCard(found), { height: 180 })),
    h(
      "div",
      { class: "grid" },
      h(
        "div",
        { class: "stack span-7" },
        card("Versions", versionTable(it, versions), { note: "One is in force; each new one is compared with it." }),
        card("Changelog", paged((token) => get(`${path}/changelog`, { page_size: 10, page_token: token }, signal), "entries", changelog, { height: 120 }), { note: "What was done to the contract, newest first." }),
      ),
      card(h("span", {}, `What is next for ${shown.version} `, versionBadges(shown)), nextSteps(shown, versions, again), { span: 5 }),
    ),
    shown.compiled.map((one) => card(h("span", {}, "Dataset ", h("code", {}, one.dataset)), pending(() => readers(path, shown, signal), (known) => fields(one, known), { height: 200 }), { aside: h("a", { class: "button", href: nodePath(`dataset:${OURS}:${one.dataset}`) }, icon("link"), "Lineage"), note: `As version ${shown.version} says${shown.in_force ? ", and who reads it" : ""}.` })),
    shown.compiled.length === 0 && card("Datasets", nothing("This version cannot come into force.", { hint: h("a", { href: editorPath(it.contract_id, shown.version) }, "See in the editor what has to be mended") })),
    card("Consumers", consumersView(it.datasets, signal), { note: "Who says that they read. A change is held up only where it breaks one of them, and names them." }),
    card("Quality and service levels", pending(() => monitorsOf(it.datasets, signal), (found) => monitorTable(found, { signal, dataset: it.datasets.length > 1 }), { height: 80 }), { note: "What the contract promises of a dataset as a whole, looked at again and again. A breach opens an incident with its owner." }),
    shown.compiled.length > 0 && impactCard({ contract_id: it.contract_id, version: shown.in_force ? "" : shown.version }, { signal, note: shown.in_force ? "If anything of its datasets changes." : `What ${shown.version} would change of the version in force.` }),
    card("Document", documentView(shown), { aside: versionBadges(shown), note: `Version ${shown.version}, as it was submitted.` }),
  );
}

const versionTable = (it, versions) =>
  table(
    [
      { label: "Version", head: "row", cell: (one) => h("a", { href: contractPath(it.contract_id, one.version) }, one.version) },
      { label: "State", cell: versionBadges },
      { label: "Submitted", cell: (one) => [at(one.created_at), h("div", { class: "faint" }, `by ${one.created_by}`)] },
      { label: "In force since", cell: (one) => [at(one.activated_at), one.sunset_at && h("div", { class: "faint" }, "until ", at(one.sunset_at))] },
      { label: "Compare with", cell: (one) => compareLink(it, versions, one) },
    ],
    [...versions].reverse(),
    { caption: "Versions" },
  );

function compareLink(it, versions, one) {
  const active = versions.find((each) => each.version === it.active_version);
  const before = versions[versions.indexOf(one) - 1];
  const other = one === active ? before : active ?? before;
  if (!other) return h("span", { class: "faint" }, "—");
  return h("a", { href: comparisonPath(it.contract_id, other.version, one.version), "aria-label": `Compare ${one.version} with ${other.version}` }, other.version);
}

/** By dataset and path: who reads each field of the version in force; null for another version. */
async function readers(path, shown, signal) {
  if (!shown.in_force) return null;
  return all(`${path}/fields`, "fields", { signal, limit: MOST_FIELDS });
}

const TYPES = { VARCHAR: "text", BIGINT: "integer", DOUBLE: "number", BOOLEAN: "true or false", DATE: "day", TIMESTAMPTZ: "moment", JSON: "nested" };

const HARMLESS = new Set(["public", "internal"]);

function fields(compiled, known) {
  const columns = new Map(compiled.columns.map((one) => [`$.${one.name}`, one]));
  const classified = new Map(compiled.classifications.map((one) => [one.path, one.classification]));
  const order = compiled.columns.map((one) => one.name);
  const place = ({ path }) => order.findIndex((name) => path === `$.${name}` || path.startsWith(`$.${name}.`) || path.startsWith(`$.${name}[`));
  const own = known?.filter((one) => one.dataset === compiled.dataset).sort((a, b) => place(a) - place(b));
  const rows = own ?? compiled.columns.map((one) => ({ path: `$.${one.name}`, consumers: [], consumer_count: 0 }));
  const unread = own?.filter((one) => !one.consumer_count).length;
  return h(
    "div",
    { class: "stack" },
    table(
      [
        { label: "Field", head: "row", cell: (one) => h("code", { class: "strong" }, one.path.replace(/^\$\./, "")) },
        { label: "Type", cell: (one) => typeOf(columns.get(one.path)) },
        { label: "Must be there", cell: (one) => (columns.get(one.path)?.required ? "yes" : h("span", { class: "faint" }, columns.has(one.path) ? "no" : "—")) },
        { label: "Classification", cell: (one) => (classified.has(one.path) ? badge(classified.get(one.path), HARMLESS.has(classified.get(one.path).toLowerCase()) ? "plain" : "warn") : h("span", { class: "faint" }, "—")) },
        ...(own ? [{ label: "Read by", sort: (one) => one.consumer_count, cell: readBy }] : []),
      ],
      rows,
      { caption: `Fields of ${compiled.dataset}`, dense: true, empty: nothing("It declares no field.") },
    ),
    known?.length >= MOST_FIELDS && h("p", { class: "notice" }, `The contract declares more; the first ${count(MOST_FIELDS)} fields are shown.`),
    own && known.length < MOST_FIELDS && h("p", { class: "faint" }, unread ? `${plural(unread, "field")} of ${count(own.length)} are read by nobody who is registered.` : "Every field is read by somebody."),
    compiled.record_rules.length > 0 && folded(`${plural(compiled.record_rules.length, "rule")} over whole records`, () => ruleTable(compiled.record_rules)),
  );
}

const typeOf = (column) => (column ? TYPES[column.type] ?? words(column.type) : h("span", { class: "faint" }, "—"));

const readBy = (one) =>
  one.consumer_count
    ? [one.consumers.map((each, index) => [index ? ", " : "", h("span", { title: each.owner && `Owner: ${each.owner}` }, each.name)]), one.consumer_count > one.consumers.length && `, and ${count(one.consumer_count - one.consumers.length)} more`]
    : badge("nobody", "plain", "No registered consumer reads it: it can be removed without breaking one");

const ruleTable = (rules) =>
  table(
    [
      { label: "Rule", head: "row", cell: (one) => [h("code", {}, one.rule_id), one.description && h("div", { class: "faint" }, one.description)] },
      { label: "On", cell: (one) => h("code", {}, one.path) },
      { label: "Must be true (CEL)", cell: (one) => h("code", { class: "wrapped" }, one.expression) },
      { label: "Severity", cell: (one) => one.severity },
    ],
    rules,
    { caption: "Rules over whole records", dense: true },
  );

async function monitorsOf(datasets, signal) {
  const found = await Promise.all(datasets.map((dataset) => all("/v1/monitors", "monitors", { query: { dataset }, signal })));
  return found.flat().filter(fromContract);
}

const documentView = (shown) =>
  h(
    "div",
    { class: "stack" },
    facts([["Submitted by", shown.created_by], ["Submitted", at(shown.created_at)], ["SHA-256", hash(shown.document_sha256, 32)], ["Compiled", shown.compiled.map((one) => h("div", {}, h("code", {}, one.dataset), " ", hash(one.compiled_sha256, 16)))]], { columns: 2 }),
    folded(`Show the document (${plural(shown.document.split("\n").length, "line")})`, () => h("pre", { class: "json document", tabindex: "0" }, shown.document)),
  );

const changelog = (entries) =>
  h(
    "ol",
    { class: "changelog" },
    entries.map((one) =>
      h(
        "li",
        {},
        h("p", {}, h("span", { class: "strong" }, `${title(one.action)} ${one.version}`), one.previous_version && ` after ${one.previous_version}`, one.level !== "LEVEL_UNSPECIFIED" && [" ", levelBadge(one.level)], one.sunset_at && [", ends ", at(one.sunset_at)]),
        h("p", { class: "faint" }, at(one.at), ` by ${one.principal}`, one.change_id && [", ", h("a", { href: `/console/trust/changes/${segment(one.change_id)}` }, "change")], one.reason && `: ${one.reason}`),
        one.consumers.length > 0 && h("p", {}, "Known to break: ", one.consumers.join(", ")),
        one.fields.length > 0 && folded(plural(one.fields.length, "field"), () => append(h("div"), fieldChanges(one.fields))),
      ),
    ),
  );
