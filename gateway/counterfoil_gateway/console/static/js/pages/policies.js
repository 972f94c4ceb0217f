/** The policies in force and the bundles they come in. */
import { all, get } from "../api.js";
import { h } from "../dom.js";
import { count, plural } from "../format.js";
import { at, badge, card, folded, hash, heading, nothing, paged, pending, stateBadge, table } from "../parts.js";

export function policies({ signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Policies", { intro: "Every service asks these before it acts. Allowed is only what a policy permits, none forbids, and all could be evaluated." }),
    card("In force", pending(() => all("/v1/policies", "policies", { signal }), list, { height: 420 })),
    card(
      "Bundles",
      paged((token) => get("/v1/policy-bundles", { page_size: 20, page_token: token }, signal), "policy_bundles", bundles, { height: 100, empty: nothing("No bundle yet.") }),
      { note: "One version is in force. A new one needs a second person; receipts cite the version that was asked." },
    ),
  );
}

function list(found) {
  if (!found.length) return nothing("No policy is in force, so everything is denied.");
  const place = h("div", { "aria-label": plural(found.length, "policy", "policies") }, found.map(item));
  if (location.hash.startsWith("#policy-")) {
    const wanted = decodeURIComponent(location.hash);
    requestAnimationFrame(() => document.getElementById(wanted.slice(1))?.scrollIntoView({ block: "center" }));
  }
  return place;
}

const item = (one) =>
  h(
    "div",
    { class: "policy", id: `policy-${one.policy_id}` },
    h("div", { class: "name" }, h("code", {}, one.policy_id), one.effect === "FORBID" ? badge("forbids", "bad") : badge("permits", "good"), one.owner && h("span", { class: "faint" }, `owner ${one.owner}`)),
    h("p", {}, one.description),
    folded("Cedar", () => h("pre", { class: "json", tabindex: "0" }, one.text)),
  );

const bundles = (found) =>
  table(
    [
      { label: "Version", head: "row", cell: (one) => count(one.version) },
      { label: "State", cell: (one) => stateBadge(one.state) },
      { label: "Hash", cell: (one) => hash(one.sha256, 16) },
      { label: "Why", cell: (one) => one.reason },
      { label: "Submitted by", cell: (one) => one.created_by },
      { label: "Change", cell: (one) => (one.change_id ? h("a", { href: `/console/trust/changes/${encodeURIComponent(one.change_id)}` }, "Change") : h("span", { class: "faint" }, "—")) },
      { label: "In force since", align: "number", cell: (one) => at(one.activated_at) },
    ],
    found,
    { caption: "Policy bundles" },
  );
