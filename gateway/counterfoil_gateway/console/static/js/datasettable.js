/** The datasets in a table: the contract of each, how much is in it and in quarantine, and how fresh it is. */
import { contractPath } from "./contracts.js";
import { contracts, datasetPath, synthetic } from "./datasets.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import { badge, nothing, since, syntheticBadge, table } from "./parts.js";
import { quarantinePath } from "./quarantine.js";

const STALE_SECONDS = 2 * 86_400;

export async function datasetTable(datasets) {
  if (!datasets.length) {
    return nothing("Nothing came in yet.", {
      hint: ["Send an event from a ", h("a", { href: "/console/sources" }, "source"), ", ", h("a", { href: "/console/sources/imports" }, "import a file"), ", or run the demo:"],
      commands: ["counterfoil demo"],
    });
  }
  const known = await contracts();
  const made = new Set();
  await Promise.all(datasets.map(async ({ dataset }) => (await synthetic([dataset])) && made.add(dataset)));
  return table(
    [
      { label: "Dataset", head: "row", sort: (row) => row.dataset, cell: (row) => [h("a", { class: "dataset-name mono", href: datasetPath(row.dataset) }, row.dataset), made.has(row.dataset) && [" ", syntheticBadge()]] },
      { label: "Contract", sort: (row) => row.contract_id, cell: (row) => (row.contract_id ? [h("a", { href: contractPath(row.contract_id) }, known.get(row.dataset)?.name ?? row.contract_id), " ", h("span", { class: "faint" }, row.contract_version)] : [badge("no contract", "warn"), " ", h("a", { href: "/console/sources/drafts" }, "draft one")]) },
      { label: "Records", align: "number", sort: (row) => row.records, cell: (row) => count(row.records) },
      { label: "Quarantined", align: "number", sort: (row) => row.quarantined, cell: (row) => (row.quarantined ? h("a", { href: quarantinePath({ dataset: row.dataset }) }, badge(count(row.quarantined), "warn")) : h("span", { class: "faint" }, "0")) },
      { label: "Last received", align: "number", sort: (row) => row.last_received_at ?? "", cell: (row) => freshness(row.last_received_at) },
    ],
    datasets,
    { caption: "Datasets", sorted: { column: 2, down: true } },
  );
}

/** How long ago, in a colour when that is long. */
export function freshness(iso) {
  const shown = since(iso);
  if (iso && (Date.now() - new Date(iso)) / 1000 > STALE_SECONDS) shown.classList.add("stale");
  return shown;
}
