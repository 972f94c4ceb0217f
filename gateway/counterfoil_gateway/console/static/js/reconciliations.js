/** Totals that senders and platforms report, beside what is here. */
import { get } from "./api.js";
import { brief, day } from "./format.js";
import { h } from "./dom.js";
import { badgeOf, nothing, paged, table } from "./parts.js";

const STATES = { MATCHED: ["the same", "good"], GAP: ["different", "bad"], WAITING: ["waits", "plain"], ERROR: ["nobody knows", "warn"] };

/** The totals of a dataset, the newest day first. */
export const reconciliationsView = (dataset, signal) =>
  paged((token) => get("/v1/reconciliations", { dataset, page_size: 50, page_token: token }, signal), "reconciliations", totals, {
    height: 80,
    empty: nothing("Nobody reports totals of it.", { hint: "What a platform says it spent, or a server says it sent: POST /v1/reconciliations. A difference opens an incident, and receipts of those days say so." }),
  });

const totals = (found) =>
  table(
    [
      { label: "Day", cell: ({ total }) => day(total.day) },
      { label: "What", head: "row", cell: ({ total }) => [total.sum_of ? ["sum of ", h("code", {}, total.sum_of)] : "records", Object.entries(total.match).map(([name, value]) => h("div", { class: "faint" }, `${name} = ${value}`))] },
      { label: "Reported by", cell: ({ total }) => total.reported_by },
      { label: "Reported", align: "number", cell: ({ total }) => brief(total.reported) },
      { label: "Here", align: "number", cell: (one) => (Number.isFinite(one.received) ? brief(one.received) : h("span", { class: "faint" }, "not compared")) },
      { label: "State", cell: (one) => badgeOf(STATES, one.state, one.detail) },
    ],
    found,
    { caption: "Totals that others report", dense: true },
  );
