/** Retention: how long the records of each dataset are kept and what for, and what is held although its time is over. */
import { all, call, get, post, segment } from "../api.js";
import { datasetPath } from "../datasets.js";
import { announce, h, icon } from "../dom.js";
import { deed, missing, removable } from "../forms.js";
import { count, dayBegins, plural } from "../format.js";
import { at, badge, badgeOf, card, folded, heading, nothing, paged, renewed, table } from "../parts.js";
import { session } from "../session.js";

const SCOPE = "governance.write";

export function retention({ signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Retention", { intro: "How long records are kept, and what for. A legal hold keeps a dataset or a person until somebody releases it: nothing held expires or is erased." }),
    card("Policies", renewed(() => beginning(signal), (known, again) => policies(known, again, signal), { height: 140 }), { note: "A dataset without one is kept for ever. What has expired leaves the log, the lake, quarantine and imports." }),
    card("Legal holds", renewed(() => beginning(signal), (known, again) => holds(known, again, signal), { height: 140 }), { note: "Newest first. Setting one and releasing it are in the audit log." }),
  );
}

/** What the forms need to know: the datasets that exist, and whether this key may set something. */
async function beginning(signal) {
  const [datasets, { scopes }] = await Promise.all([all("/v1/datasets", "datasets", { signal }), session()]);
  return { datasets: datasets.map((one) => one.dataset), may: scopes.includes(SCOPE) };
}

const policies = (known, again, signal) => [
  paged((token) => get("/v1/retention-policies", { page_size: 100, page_token: token }, signal), "retention_policies", (found) => policyTable(found, known, again), { empty: nothing("Everything is kept for ever.") }),
  folded("Set a policy", () => (known.may ? policyForm(known, again) : missing(SCOPE))),
];

const policyTable = (found, { may }, again) =>
  table(
    [
      { label: "Dataset", head: "row", cell: (one) => h("a", { href: datasetPath(one.dataset) }, h("code", {}, one.dataset)) },
      { label: "Kept for", align: "number", sort: (one) => one.days, cell: (one) => plural(one.days, "day") },
      { label: "What for", cell: (one) => one.purpose },
      { label: "Owner", cell: (one) => one.owner },
      { label: "Last done", cell: done },
      { label: "Set", align: "number", cell: (one) => [at(one.set_at), h("div", { class: "faint" }, `by ${one.set_by}`)] },
      { label: "", cell: (one) => may && removal(one, again) },
    ],
    found,
    { caption: "Retention policies" },
  );

function removal(one, again) {
  const remove = async () => {
    await call("DELETE", `/v1/retention-policies/${segment(one.dataset)}`, { query: { etag: one.etag } });
    announce(`${one.dataset} is kept for ever`);
    again();
  };
  return deed("Keep for ever", remove, { label: `Keep for ever: ${one.dataset}` });
}

function done({ report }) {
  if (!report) return h("span", { class: "faint" }, "nothing yet");
  return [
    at(report.completed_at),
    h("div", { class: "faint" }, `${plural(report.records, "record")} and ${count(report.quarantined)} quarantined erased in all`),
    report.held > 0 && badge(`${count(report.held)} held`, "warn", "Their time is over, and a legal hold keeps them"),
    report.waiting_for && h("div", { class: "stale" }, icon("warn"), ` ${report.waiting_for}`),
  ];
}

function policyForm({ datasets }, again) {
  const dataset = h("select", { name: "dataset", required: true }, datasets.map((each) => h("option", { value: each }, each)));
  const days = h("input", { name: "days", type: "number", min: "1", max: "36500", required: true, size: "6" });
  const purpose = h("input", { name: "purpose", required: true, maxlength: "200", autocomplete: "off", placeholder: "measurement" });
  const owner = h("input", { name: "owner", maxlength: "200", autocomplete: "off", placeholder: "you" });
  const set = async () => {
    await post("/v1/retention-policies", { dataset: dataset.value, days: days.valueAsNumber, purpose: purpose.value, owner: owner.value });
    announce(`The policy of ${dataset.value} is set`);
    again();
  };
  const fields = [h("label", {}, "Dataset", dataset), h("label", {}, "Days after receipt", days), h("label", { class: "grow" }, "What for", purpose), h("label", {}, "Owner", owner)];
  return h("div", { class: "stack" }, h("p", { class: "faint" }, "What is older is erased within the hour, and does not come back."), deed("Set", set, { fields, shape: "check", kind: "primary" }));
}

const holds = (known, again, signal) => [
  paged((token) => get("/v1/legal-holds", { page_size: 50, page_token: token }, signal), "legal_holds", (found) => holdTable(found, known, again), { empty: nothing("Nothing is held.") }),
  folded("Hold something", () => (known.may ? holdForm(known, again) : missing(SCOPE))),
];

const STATES = { ACTIVE: ["held", "warn"], RELEASED: ["released", "good"], EXPIRED: ["over", "plain"] };

const holdTable = (found, { may }, again) =>
  table(
    [
      { label: "What", head: "row", cell: (one) => (one.dataset ? h("code", {}, one.dataset) : ["A person, by ", one.identifier_types.join(", ")]) },
      { label: "State", cell: (one) => badgeOf(STATES, one.state) },
      { label: "Why", cell: (one) => [one.reason, one.release_reason && h("div", { class: "faint" }, `Released: ${one.release_reason}`)] },
      { label: "Owner", cell: (one) => one.owner },
      { label: "Ends", align: "number", cell: (one) => (one.released_at ? at(one.released_at) : one.expires_at ? at(one.expires_at) : "when released") },
      { label: "Set", align: "number", cell: (one) => [at(one.created_at), h("div", { class: "faint" }, `by ${one.created_by}`)] },
      { label: "", cell: (one) => may && one.state === "ACTIVE" && folded("Release", () => release(one, again)) },
    ],
    found,
    { caption: "Holds" },
  );

const reasoned = () => h("input", { name: "reason", required: true, maxlength: "500", autocomplete: "off", placeholder: "no personal data" });

function release(one, again) {
  const reason = reasoned();
  const end = async () => {
    await post(`/v1/legal-holds/${segment(one.legal_hold_id)}:release`, { reason: reason.value });
    announce("The hold is released");
    again();
  };
  return deed("Release", end, { kind: "danger", fields: h("label", { class: "grow" }, "Reason", reason) });
}

function holdForm({ datasets }, again) {
  const dataset = h("select", { name: "dataset" }, h("option", { value: "" }, "none: a person"), datasets.map((each) => h("option", { value: each }, each)));
  const identifiers = removable("Name an identifier of the person", identifierRow);
  const reason = reasoned();
  const owner = h("input", { name: "owner", maxlength: "200", autocomplete: "off", placeholder: "you" });
  const ends = h("input", { name: "expires_at", type: "date", title: "None: until it is released" });
  const hold = async () => {
    const body = { dataset: dataset.value, identifiers: identifiers.values(), reason: reason.value, owner: owner.value };
    await post("/v1/legal-holds", { ...body, ...(ends.value && { expires_at: dayBegins(ends.value) }) });
    announce("It is held");
    again();
  };
  const fields = [h("label", {}, "Dataset", dataset), h("label", { class: "grow" }, "Reason", reason), h("label", {}, "Owner", owner), h("label", {}, "Ends on", ends), identifiers.element];
  return deed("Hold", hold, { fields, shape: "check", kind: "primary" });
}

function identifierRow() {
  const type = h("input", { name: "type", required: true, maxlength: "64", placeholder: "email", autocomplete: "off" });
  const value = h("input", { name: "value", required: true, maxlength: "500", autocomplete: "off" });
  return { fields: [h("label", {}, "Type", type), h("label", { class: "grow" }, "Value", value)], value: () => ({ type: type.value, value: value.value }) };
}
