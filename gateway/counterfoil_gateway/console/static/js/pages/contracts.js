/** The workspace's contracts: what each governs, which version is in force, and what came in under it. */
import { all, get, once, segment } from "../api.js";
import { contractPath } from "../contracts.js";
import { fill, h, icon } from "../dom.js";
import { count, plural } from "../format.js";
import { at, badge, card, heading, nothing, paged, pending, stateBadge, table } from "../parts.js";

export function contracts({ signal }) {
  const datasets = once(() => all("/v1/datasets", "datasets", { signal }));
  return h(
    "div",
    { class: "stack" },
    heading("Contracts", {
      intro: "Each says what the records of its datasets look like, who owns them and what may be relied on. A new version is compared with the one in force by proof.",
      actions: h("a", { class: "button", href: "/console/sources/drafts" }, icon("edit"), "Draft a contract"),
    }),
    card(null, paged((token) => get("/v1/contracts", { page_size: 50, page_token: token }, signal), "contracts", (found) => list(found, datasets), { height: 420 })),
  );
}

function list(found, datasets) {
  const counted = (render) => (contract) => {
    const place = h("span", { class: "faint" }, "…");
    datasets().then(
      (known) => fill(place, render(known.filter((each) => contract.datasets.includes(each.dataset)))),
      (error) => error.name === "AbortError" || fill(place, h("span", { title: error.message }, "not known")),
    );
    place.classList.remove("faint");
    return place;
  };
  return table(
    [
      { label: "Contract", head: "row", sort: (one) => one.display_name || one.contract_id, cell: (one) => [h("a", { href: contractPath(one.contract_id) }, one.display_name || one.contract_id), " ", one.shipped && badge("shipped", "plain", "It came with the platform"), h("div", {}, h("code", { class: "faint" }, one.contract_id))] },
      { label: "Datasets", cell: (one) => one.datasets.map((name) => h("div", { class: "mono" }, name)) },
      { label: "In force", sort: (one) => one.active_version, cell: (one) => (one.active_version ? badge(one.active_version, "good") : badge("none", "warn", "Nothing comes in under this contract until a version is in force")) },
      { label: "Newest", cell: (one) => (one.latest_version === one.active_version ? h("span", { class: "faint" }, "the same") : one.latest_version) },
      { label: "Records", align: "number", cell: counted((known) => count(known.reduce((sum, each) => sum + each.records, 0))) },
      { label: "Quarantined", align: "number", cell: counted((known) => quarantined(known.reduce((sum, each) => sum + each.quarantined, 0))) },
      { label: "Since", align: "number", sort: (one) => one.created_at, cell: (one) => at(one.created_at) },
    ],
    found,
    { caption: "Contracts" },
  );
}

const quarantined = (records) => (records ? badge(count(records), "warn") : h("span", { class: "faint" }, "0"));
