/** Two versions of a contract side by side: what that does to whoever sends and reads, then the documents line by line. */
import { all, get, post, segment } from "../api.js";
import { comparisonsView, versionView } from "../comparisons.js";
import { comparisonPath, contractPath, findingsView, versionBadges } from "../contracts.js";
import { h } from "../dom.js";
import { words } from "../format.js";
import { card, heading, nothing, pending } from "../parts.js";
import { sideBySide } from "../sidebyside.js";

export function comparison({ contract_id: id, query, signal, go }) {
  const path = `/v1/contracts/${segment(id)}`;
  return h(
    "div",
    { class: "stack" },
    heading("Two versions", { crumb: [id, contractPath(id)], intro: "What sets them apart, for records first and then in their documents." }),
    pending(() => all(`${path}/versions`, "versions", { signal, limit: 10_000 }), (versions) => view({ id, path, versions, query, signal, go }), {
      height: 600,
      gone: () => nothing("There is no such contract.", { hint: h("a", { href: "/console/sources/contracts" }, "Show the contracts") }),
    }),
  );
}

function view({ id, path, versions, query, signal, go }) {
  const active = versions.findLast((one) => one.state === "ACTIVE");
  const latest = versions.at(-1);
  const to = named(versions, query.get("to")) ?? latest;
  const from = named(versions, query.get("from")) ?? (active === to ? versions[Math.max(0, versions.indexOf(to) - 1)] : active) ?? versions[0];
  if (versions.length < 2) return nothing("The contract has a single version.", { hint: h("a", { href: contractPath(id) }, "Go to the contract") });
  const pick = (label, chosen, other) =>
    h(
      "label",
      {},
      label,
      h("select", { onchange: (event) => go(other(event.target.value)) }, versions.map((one) => h("option", { value: one.version, selected: one === chosen }, `${one.version} · ${words(one.state)}`))),
    );
  const read = (one) => get(`${path}/versions/${segment(one.version)}`, {}, signal);
  return h(
    "div",
    { class: "stack" },
    h("div", { class: "form" }, pick("From", from, (version) => comparisonPath(id, version, to.version)), pick("To", to, (version) => comparisonPath(id, from.version, version))),
    pending(async () => Promise.all([read(from), read(to)]), ([left, right]) => documents(left, right, signal), { height: 560 }),
  );
}

const named = (versions, version) => versions.find((one) => one.version === version);

function documents(left, right, signal) {
  const title = (one) => [one.version, " ", versionBadges(one)];
  return h(
    "div",
    { class: "stack" },
    card(
      `What ${right.version} does to records, against ${left.version}`,
      pending(() => post("/v1/contracts:check", { document: right.document, against_version: left.version }, { slow: true, signal }), (found) => verdicts(found, left), { height: 150 }),
      { note: "A proof that every record still passes, or a record that does not." },
    ),
    card("Documents", sideBySide({ title: title(left), text: left.document }, { title: title(right), text: right.document })),
  );
}

function verdicts({ findings, comparisons, comparison }, left) {
  if (findings.length) return findingsView(findings);
  if (!comparisons.length) return nothing(`Version ${left.version} governs none of these datasets.`, { hint: "There is nothing to compare." });
  const beside = `version ${left.version}`;
  return h("div", { class: "stack" }, comparisonsView(comparisons, { beside }), versionView(comparison, { beside }));
}
