/** Checks: contracts are tried, or records described, where the records are; what was found comes back a moment later. */
import { Problem, get, post, segment } from "./api.js";
import { h, icon } from "./dom.js";
import { count, percent, plural, words } from "./format.js";
import { badge, nothing, table } from "./parts.js";

const FIRST_WAIT = 300; // milliseconds
const LONGEST_WAIT = 3_000;
const PATIENCE = 90_000; // a check takes seconds where ingest can be reached

/** Ask for a check and wait for what it found. */
export async function check(request, signal) {
  const asked = await post("/v1/checks", request, { signal });
  return finished(asked.check_id, signal);
}

/** A check once it is done; raise Problem when it could not be run, or still waits after a minute and a half. */
export async function finished(id, signal) {
  const begun = Date.now();
  for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.5)) {
    const found = await get(`/v1/checks/${segment(id)}`, {}, signal);
    if (found.state === "FAILED") throw new Problem({ title: "The check could not be run", detail: found.error_detail, reason: found.error_reason });
    if (found.state === "DONE") return found;
    if (Date.now() - begun > PATIENCE) throw new Problem({ title: "The check still waits", detail: "Ingest has not run it yet; it does so once it can be reached.", reason: "CHECK_PENDING" });
    await pause(wait, signal);
  }
}

/** Wait, unless the page is left meanwhile. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const left = () => reject(signal.reason);
    if (signal?.aborted) left();
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", left);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), left()), { once: true });
  });
}

/** What became of recent records under a contract that is tried. */
export const trialsView = ({ trials }) =>
  h(
    "div",
    { class: "stack" },
    trials.map((one) =>
      h(
        "div",
        { class: `outcome ${one.failed ? "mismatch" : one.tried ? "match" : ""}`, "data-failed": String(one.failed) },
        h("strong", {}, icon(one.failed ? "cross" : one.tried ? "check" : "warn"), h("span", { class: "mono" }, one.dataset)),
        h("p", {}, one.tried ? [h("span", { class: "strong" }, count(one.failed)), ` of the newest ${plural(one.tried, "record")} would have gone to quarantine.`] : "There are no records to try it on yet."),
        one.faults.length > 0 && faults(one.faults),
      ),
    ),
  );

const faults = (found) =>
  h("ul", { class: "breaks" }, found.map((one) => h("li", {}, h("p", {}, h("code", { class: "strong" }, one.path), " ", h("code", { class: "faint" }, one.reason)), h("p", {}, one.detail, h("span", { class: "faint" }, ` ${plural(one.records, "record")}, the newest at offset ${count(one.offset)}`)))));

/** What recent records look like, field by field. */
export function profileView({ records, fields, truncated }) {
  if (!records) return nothing("No such record came in lately.");
  return [
    table(
      [
        { label: "Field", head: "row", cell: (one) => h("code", { class: "strong" }, one.path.replace(/^\$\./, "")) },
        { label: "Type", cell: (one) => [one.types.map((each) => each.value).join(" or ") || "null", one.format && h("div", { class: "faint" }, one.format)] },
        { label: "There", align: "number", sort: share, cell: (one) => percent(share(one)) },
        { label: "Null", align: "number", cell: (one) => (one.nulls ? percent(one.nulls / one.present) : h("span", { class: "faint" }, "never")) },
        { label: "Values", cell: values },
        { label: "Personal", cell: (one) => (one.personal ? badge(words(one.personal), "warn", "By its values or its name; its values are not kept") : h("span", { class: "faint" }, "—")) },
      ],
      fields,
      { caption: "Fields that were seen", dense: true },
    ),
    truncated && h("p", { class: "faint" }, "There were more fields than are told."),
  ];
}

const share = (one) => (one.parents ? one.present / one.parents : 0);
const FEW = 6;

function values(one) {
  if (one.personal) return h("span", { class: "faint" }, "not shown");
  if (one.values.length) return [one.values.slice(0, FEW).map((each, index) => [index ? ", " : "", h("code", { title: plural(each.count, "record") }, each.value)]), one.distinct > FEW && h("span", { class: "faint" }, `, ${count(one.distinct)} in all`)];
  return one.distinct ? h("span", { class: "faint" }, `${one.distinct >= 1000 ? "1,000 or more" : count(one.distinct)} different`) : h("span", { class: "faint" }, "—");
}
