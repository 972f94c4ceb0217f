/** One receipt: the stub with its id and replay at the left, what stands behind the output at the right. */
import { get, post, segment } from "../api.js";
import { contractPath } from "../contracts.js";
import { datasetsOf, markSynthetic } from "../datasets.js";
import { announce, fill, h, icon } from "../dom.js";
import { count, exact, plural, title, words } from "../format.js";
import { at, badge, completeness, facts, folded, hash, heading, json, nothing, pending, problemBox, syntheticBadge, table, tierBadge } from "../parts.js";
import { outputKind } from "./receipts.js";

const OUTCOMES = {
  MATCH: ["match", "check", "Match", "The output was made again from the cited inputs, and it is the same number for number."],
  MISMATCH: ["mismatch", "cross", "Mismatch", "The output was made again and differs."],
  RUNTIME_CHANGED: ["", "warn", "Runtime changed", "The code is not the code of the receipt, and the output differs."],
  INPUT_ERASED: ["", "warn", "Input erased", "An erasure removed records that the output was made from."],
  EXPIRED: ["", "warn", "Expired", "The inputs are no longer kept."],
};

export function receipt({ receipt_id: id, signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Receipt", { crumb: ["Receipts", "/console/trust/receipts"] }),
    pending(() => get(`/v1/receipts/${segment(id)}`, {}, signal), view, {
      height: 640,
      gone: () => nothing("There is no such receipt.", { hint: h("a", { href: "/console/trust/receipts" }, "Show all receipts") }),
    }),
  );
}

function view(it) {
  return h("article", { class: "stub" }, stub(it), h("div", { class: "stub-right" }, data(it), contracts(it), model(it), governance(it), h("section", { class: "part" }, h("h2", {}, "Completeness"), completeness(it.completeness)), parameters(it), runtime(it)));
}

function stub(it) {
  const marks = h("span");
  markSynthetic(marks, datasetsOf(it), syntheticBadge);
  return h(
    "div",
    { class: "stub-left" },
    h("div", {}, h("p", { class: "verdict" }, outputKind(it.output), marks), h("p", { class: "stub-id" }, it.receipt_id)),
    replay(it),
    facts([
      ["Output", h("code", {}, it.output)],
      ["Output hash (SHA-256)", h("code", { class: "stub-id" }, it.output_sha256)],
      ["Made", exact(it.created_at)],
      ["Asked by", it.principal],
      ["Purpose", [words(it.purpose), " ", tierBadge(it.impact_tier)]],
      ["Producer", it.producer],
      ["Trace", it.trace_id && h("code", { class: "stub-id" }, it.trace_id)],
      ["Can be replayed until", it.expires_at ? exact(it.expires_at) : "its inputs are deleted"],
    ]),
  );
}

function replay(it) {
  const result = h("div", { role: "status" });
  const button = h("button", { type: "button", class: "button primary", onclick: run }, icon("replay"), "Replay");
  async function run() {
    button.disabled = true;
    fill(result, h("p", { class: "faint" }, "Making the output again from its inputs …"));
    try {
      const found = await post(`/v1/receipts/${segment(it.receipt_id)}:replay`, {}, { slow: true });
      fill(result, outcome(found));
      announce(`Replay: ${words(found.outcome)}`);
    } catch (error) {
      fill(result, problemBox(error));
    }
    button.disabled = false;
  }
  return h("div", { class: "stack" }, button, result);
}

function outcome(found) {
  const [kind, shape, name, text] = OUTCOMES[found.outcome] ?? ["", "warn", title(found.outcome), ""];
  return h(
    "div",
    { class: `outcome ${kind}`, "data-outcome": found.outcome },
    h("strong", {}, icon(shape), name),
    h("p", {}, found.detail || text),
    found.field && h("p", {}, "First difference: ", h("code", {}, found.field)),
    found.actual_sha256 && found.actual_sha256 !== found.expected_sha256 && h("p", {}, "Made again: ", h("code", {}, found.actual_sha256)),
    h("p", {}, at(found.replayed_at)),
  );
}

const part = (name, ...body) => h("section", { class: "part" }, h("h2", {}, name), body);

function data(it) {
  return part(
    "Data",
    it.inputs.length
      ? table(
          [
            { label: "Dataset", head: "row", cell: ({ snapshot }) => h("span", { class: "mono" }, snapshot?.dataset || "the log") },
            { label: "Read as", cell: (input) => words(input.role) },
            { label: "Records", align: "number", cell: (input) => count(input.rows) },
            { label: "Below offset", align: "number", cell: ({ snapshot }) => (snapshot?.offsets ?? []).map((one) => count(one.offset)).join(", ") },
            { label: "Log", cell: ({ snapshot }) => hash(snapshot?.log_epoch, 13) },
            { label: "Erasures before", align: "number", cell: ({ snapshot }) => count(snapshot?.erasure_revision ?? 0) },
          ],
          it.inputs,
          { caption: "Data", dense: true },
        )
      : h("p", { class: "faint" }, "No dataset was read."),
    it.graph_as_of && h("p", {}, "The graph as it was known at ", exact(it.graph_as_of), "."),
    it.feature_vector_sha256.length > 0 && h("p", {}, plural(it.feature_vector_sha256.length, "feature vector"), "."),
  );
}

function contracts(it) {
  if (!it.contracts.length) return null;
  return part(
    "Contracts",
    table(
      [
        { label: "Contract", head: "row", cell: (one) => h("a", { href: contractPath(one.contract_id, one.version) }, one.contract_id) },
        { label: "Version", cell: (one) => one.version },
        { label: "Dataset", cell: (one) => h("span", { class: "mono" }, one.dataset) },
        { label: "Compiled schema", cell: (one) => hash(one.compiled_sha256, 16) },
      ],
      it.contracts,
      { caption: "Contracts", dense: true },
    ),
  );
}

function model(it) {
  if (!it.model) return null;
  return part("Model", facts([["Model", h("code", {}, it.model.model_id)], ["Version", it.model.version ? count(it.model.version) : null], ["Kind", words(it.model.kind)], ["Artifact", hash(it.model.artifact_sha256, 24)]], { columns: 2 }));
}

function governance(it) {
  return part(
    "Policy, approval, consent",
    it.policy_checks.length
      ? it.policy_checks.map((check) =>
          h("div", { class: "check" }, icon(check.allowed ? "check" : "cross", check.allowed ? "allowed" : "denied"), h("span", {}, h("span", { class: "strong" }, words(check.action)), " on ", h("code", {}, check.resource), ": ", check.allowed ? "allowed by " : "denied by ", check.policy_ids.map((id, index) => [index ? ", " : "", h("a", { href: `/console/trust/policies#policy-${encodeURIComponent(id)}` }, h("code", {}, id))]))),
        )
      : h("p", { class: "faint" }, "No policy was asked."),
    facts(
      [
        ["Policy bundle", it.policy_bundle ? ["version ", count(it.policy_bundle.version), " ", hash(it.policy_bundle.sha256)] : "none was in force"],
        ["Approved changes", it.changes.length ? it.changes.map((id) => h("a", { href: `/console/trust/changes/${encodeURIComponent(id)}` }, h("code", {}, id))) : "none needed"],
        ["Waivers", it.waivers.length ? it.waivers.join(", ") : null],
        ["Legal basis", it.consent ? [badge(words(it.consent.basis) || "none", it.consent.basis ? "good" : "plain"), ` for ${words(it.consent.purpose)}, ledger revision ${count(it.consent.ledger_revision)}`] : "no personal data under consent was used"],
      ],
      { columns: 1 },
    ),
  );
}

const parameters = (it) => part("Parameters", folded("What was asked, as canonical JSON", () => json(it.parameters)));

function runtime(it) {
  const { runtime: code } = it;
  if (!code) return null;
  return part("Runtime", facts([["Release", code.release], ["Python", code.python], ["Platform", code.platform], ["Installed", hash(code.lock_sha256, 16)], ["Image", code.image_digest ? hash(code.image_digest, 19) : "from a checkout"]], { columns: 2 }));
}
