/** What is known of datasets beyond the list: their contracts, and whether they were made up. */
import { all, get, segment } from "./api.js";

const SYNTHETIC_PREFIX = "harbour_"; // every dataset of the synthetic demo store
let known;

/** The address of a dataset's page. */
export const datasetPath = (dataset) => `/console/sources/datasets/${segment(dataset)}`;

/** The names of the datasets that have a contract: records can be put into these. */
export const contracted = async (signal) => (await all("/v1/datasets", "datasets", { signal })).filter((one) => one.contract_id).map((one) => one.dataset);

/** Contract by dataset: `{id, name, synthetic, columns}`; asked for once. Without the right to read contracts it is empty. */
export function contracts() {
  known ??= read().catch(() => {
    known = undefined;
    return new Map();
  });
  return known;
}

async function read() {
  const found = new Map();
  const listed = await all("/v1/contracts", "contracts");
  await Promise.all(
    listed
      .filter((contract) => contract.active_version)
      .map(async (contract) => {
        const version = await get(`/v1/contracts/${segment(contract.contract_id)}/versions/${segment(contract.active_version)}`);
        const synthetic = /synthetic/i.test(`${contract.contract_id} ${contract.display_name}`) || tagsOf(version.document).includes("synthetic");
        for (const compiled of version.compiled) {
          found.set(compiled.dataset, { id: contract.contract_id, name: contract.display_name || contract.contract_id, synthetic, columns: compiled.columns });
        }
      }),
  );
  return found;
}

/** The top-level `tags` of an ODCS document, in JSON or in YAML's two ways to write a list. */
export function tagsOf(document) {
  try {
    const read = JSON.parse(document);
    return (read.tags ?? []).map((tag) => String(tag).toLowerCase());
  } catch {
    const lines = document.split(/\r?\n/);
    const start = lines.findIndex((line) => /^tags\s*:/.test(line));
    if (start < 0) return [];
    const inline = lines[start].replace(/^tags\s*:/, "");
    const block = [];
    for (const line of lines.slice(start + 1)) {
      const item = /^\s*-\s*(.+)$/.exec(line);
      if (!item) break;
      block.push(item[1]);
    }
    return [...inline.replace(/[[\]]/g, "").split(","), ...block].map((tag) => tag.replace(/#.*/, "").replace(/["']/g, "").trim().toLowerCase()).filter(Boolean);
  }
}

/** Every dataset that a receipt names: as an input, by a contract, or in a policy check (a graph's inputs are known by these alone). */
export function datasetsOf(receipt) {
  const checked = receipt.policy_checks.map((check) => /^dataset:(.+)$/i.exec(check.resource)?.[1]);
  return new Set([...receipt.inputs.map((input) => input.snapshot?.dataset), ...receipt.contracts.map((one) => one.dataset), ...checked].filter(Boolean));
}

/** Whether any of these datasets was made up. */
export async function synthetic(datasets) {
  const names = [...datasets];
  if (names.some((name) => name.startsWith(SYNTHETIC_PREFIX))) return true;
  const found = await contracts();
  return names.some((name) => found.get(name)?.synthetic);
}

/** Put a badge into `place` once it is known that one of the datasets was made up. */
export async function markSynthetic(place, datasets, badge) {
  if (await synthetic(datasets)) place.append(" ", badge());
}
