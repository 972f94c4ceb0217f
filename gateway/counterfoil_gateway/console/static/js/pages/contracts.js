/** The workspace's contracts: what each governs, which version is in force, and what came in under it. */
import { all, get, once } from "../api.js";
import { contractPath } from "../contracts.js";
import { fill, h, icon } from "../dom.js";
import { count } from "../format.js";
import { fromContract, heldBadge, monitorBadge } from "../monitors.js";
import { at, badge, card, heading, paged, table } from "../parts.js";

export function contracts({ signal }) {
  const datasets = once(() => all("/v1/datasets", "datasets", { signal }));
  const monitors = once(() => all("/v1/monitors", "monitors", { signal, limit: 5000 }));
  return h(
    "div",
    { class: "stack" },
    heading("Contracts", {
      intro: "What the records of each dataset look like, who owns them, and what may be relied on.",
      actions: h("a", { class: "button", href: "/console/sources/drafts" }, icon("edit"), "Draft a contract"),
    }),
    card(null, paged((token) => get("/v1/contracts", { page_size: 50, page_token: token }, signal), "contracts", (found) => list(found, datasets, monitors), { height: 420 })),
  );
}

function list(found, datasets, monitors) {
  const records = later(datasets, (known, contract) => known.filter((each) => contract.datasets.includes(each.dataset)));
  const sum = (field, render) => records((known) => render(known.reduce((total, each) => total + each[field], 0)));
  const promised = later(monitors, (known, contract) => known.filter((each) => each.contract_id === contract.contract_id && fromContract(each)))(promises);
  return table(
    [
      { label: "Contract", head: "row", sort: (one) => one.display_name || one.contract_id, cell: (one) => [h("a", { href: contractPath(one.contract_id) }, one.display_name || one.contract_id), " ", one.shipped && badge("shipped", "plain", "It came with the platform"), h("div", {}, h("code", { class: "faint" }, one.contract_id))] },
      { label: "Datasets", cell: (one) => one.datasets.map((name) => h("div", { class: "mono" }, name)) },
      { label: "In force", sort: (one) => one.active_version, cell: (one) => (one.active_version ? badge(one.active_version, "good") : badge("none", "warn", "Nothing comes in under this contract until a version is in force")) },
      { label: "Newest", cell: (one) => (one.latest_version === one.active_version ? h("span", { class: "faint", title: "It is in force" }, "—") : one.latest_version) },
      { label: "Promises", cell: promised },
      { label: "Records", align: "number", cell: sum("records", count) },
      { label: "Quarantined", align: "number", cell: sum("quarantined", (many) => (many ? badge(count(many), "warn") : h("span", { class: "faint" }, "0"))) },
      { label: "Since", align: "number", sort: (one) => one.created_at, cell: (one) => at(one.created_at) },
    ],
    found,
    { caption: "Contracts" },
  );
}

/** A cell whose content comes later: of all that `ask` returns, what `choose` takes for the row, as `render` shows it. */
const later = (ask, choose) => (render) => (contract) => {
  const place = h("span", {}, "…");
  ask().then(
    (known) => fill(place, render(choose(known, contract))),
    (error) => error.name === "AbortError" || fill(place, h("span", { class: "faint", title: error.message }, "not known")),
  );
  return place;
};

/** How many monitors there are in each state. */
function promises(monitors) {
  if (!monitors.length) return h("span", { class: "faint" }, "none");
  const states = new Map();
  for (const { state } of monitors) states.set(state, (states.get(state) ?? 0) + 1);
  return [[...states].map(([state, many]) => [monitorBadge(state, many), " "]), monitors.some((one) => one.held) && heldBadge()];
}
