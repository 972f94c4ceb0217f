/** The audit log: what was done by whom, verified in front of you, and exported with a verifier of its own. */
import { get, post } from "../api.js";
import { announce, fill, h, icon } from "../dom.js";
import { count, plural } from "../format.js";
import { at, badge, card, facts, folded, hash, heading, json, nothing, paged, pending, problemBox, table } from "../parts.js";

export function audit({ query, signal, go }) {
  const principal = query.get("principal") ?? "";
  const resource = query.get("resource") ?? "";
  return h(
    "div",
    { class: "stack" },
    heading("Audit", {
      intro: "Everything that was done, in a log that can only grow. Each entry is a leaf of a hash tree whose root is signed.",
      actions: h("a", { class: "button", href: "/v1/audit:export", download: "" }, icon("download"), "Export with verifier"),
    }),
    card("Proof", proof(signal), { note: "Verify hashes every entry again and compares the tree with everything stored and signed. The export holds verify.py, which needs Python alone." }),
    card(
      "Entries",
      paged((token) => get("/v1/audit/entries", { page_size: 50, page_token: token, principal, resource, newest_first: true }, signal), "entries", entries, { height: 480, empty: nothing(principal || resource ? "No entry fits." : "Nothing was done yet.", { hint: (principal || resource) && h("a", { href: "/console/trust/audit" }, "Show all entries") }) }),
      { note: "Newest first.", aside: filter({ principal, resource, go }) },
    ),
  );
}

function proof(signal) {
  const result = h("div", { role: "status" });
  const button = h("button", { type: "button", class: "button primary", onclick: verify }, icon("trust"), "Verify");
  async function verify() {
    button.disabled = true;
    fill(result, h("p", { class: "faint" }, "Hashing every entry again …"));
    try {
      const found = await post("/v1/audit:verify", {}, { slow: true, signal });
      fill(result, verified(found));
      announce(found.ok ? "The audit log verifies" : "The audit log does not verify");
    } catch (error) {
      fill(result, problemBox(error));
    }
    button.disabled = false;
  }
  return h("div", { class: "verify" }, pending(() => get("/v1/audit/checkpoint", {}, signal), checkpoint, { height: 96 }), h("div", {}, button), result);
}

const checkpoint = (it) =>
  h(
    "div",
    { class: "stack" },
    facts([["Log", h("code", {}, it.origin)], ["Entries", count(it.tree_size)], ["Signed", at(it.signed_at)], ["Root", hash(it.root_sha256, 32)]], { columns: 2 }),
    folded("Signed checkpoint", () => [h("pre", { class: "json", tabindex: "0" }, it.note), h("p", { class: "faint" }, "Verifier key: ", h("code", {}, it.verifier_key))]),
  );

function verified(found) {
  return h(
    "div",
    { class: found.ok ? "outcome match" : "outcome mismatch", "data-ok": String(found.ok) },
    h("strong", {}, icon(found.ok ? "check" : "cross"), found.ok ? "Everything fits" : "It does not fit"),
    h("p", {}, `${plural(found.entries, "entry", "entries")} hashed again, ${plural(found.checkpoints, "signature")} checked. Root `, h("code", {}, found.root_sha256)),
    found.findings.length > 0 && h("ul", {}, found.findings.map((one) => h("li", {}, h("code", {}, one.reason), one.index >= 0 && ` at entry ${count(one.index)}`, ": ", one.detail))),
  );
}

function filter({ principal, resource, go }) {
  const who = h("input", { name: "principal", value: principal, placeholder: "anybody", "aria-label": "Principal", autocomplete: "off", size: "12" });
  const what = h("input", { name: "resource", value: resource, placeholder: "any resource", "aria-label": "Resource", autocomplete: "off", size: "22" });
  const search = () => {
    const wanted = new URLSearchParams();
    if (who.value) wanted.set("principal", who.value);
    if (what.value) wanted.set("resource", what.value);
    go(`/console/trust/audit${wanted.size ? `?${wanted}` : ""}`);
  };
  return h("form", { class: "form", onsubmit: (event) => (event.preventDefault(), search()) }, who, what, h("button", { type: "submit", class: "button" }, "Filter"));
}

const entries = (found) =>
  table(
    [
      { label: "Entry", head: "row", align: "number", cell: (one) => count(one.index) },
      { label: "When", cell: (one) => at(one.happened_at) },
      { label: "Who", cell: (one) => one.principal },
      { label: "What", cell: (one) => badge(one.action, "accent") },
      { label: "To what", cell: (one) => h("div", { class: "whole" }, h("code", {}, one.resource), hasDetails(one) && folded("Details", () => [json(one.details), one.trace_id && h("p", { class: "faint" }, "Trace ", h("code", {}, one.trace_id))])) },
      { label: "Service", cell: (one) => one.service },
      { label: "Leaf", cell: (one) => hash(one.leaf_sha256, 8) },
    ],
    found,
    { caption: "Audit entries", dense: true },
  );

const hasDetails = ({ details }) => details && typeof details === "object" && Object.keys(details).length > 0;
