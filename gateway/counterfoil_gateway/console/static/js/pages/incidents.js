/** Incidents: promises that were broken, told as a story: noticed, held, looked after, repaired, released. */
import { get, post, segment } from "../api.js";
import { pause } from "../checks.js";
import { contractPath } from "../contracts.js";
import { announce, fill, h, icon } from "../dom.js";
import { exact, words } from "../format.js";
import { impactCard } from "../impact.js";
import { evaluateButton, heldBadge, incidentPath, measured, monitorBadge, promise, resultsView } from "../monitors.js";
import { at, badge, badgeOf, card, choice, facts, heading, nothing, paged, pending, problemBox, table } from "../parts.js";
import { session } from "../session.js";

const SHOWN = [["", "All"], ["OPEN", "Open"], ["ACKNOWLEDGED", "Looked after"], ["RESOLVED", "Over"]];

export function incidents({ query, signal, go }) {
  const state = query.get("state") ?? "";
  return h(
    "div",
    { class: "stack" },
    heading("Incidents", { intro: "What a contract promised of a dataset and was not kept, who is responsible, and how it ended." }),
    card(
      "Newest first",
      paged((token) => get("/v1/incidents", { page_size: 25, page_token: token, state }, signal), "incidents", list, {
        height: 260,
        empty: nothing(state ? "There is none." : "No promise was broken.", { hint: "Rules and service levels of contracts in force are looked at again and again; a breach opens an incident." }),
      }),
      { aside: choice("Which incidents", SHOWN, state, (chosen) => go(`/console/trust/incidents${chosen ? `?state=${chosen}` : ""}`)) },
    ),
  );
}

const list = (found) =>
  table(
    [
      { label: "Promise", head: "row", cell: (one) => [h("a", { href: incidentPath(one.incident_id) }, one.summary), h("div", { class: "faint" }, one.detail)] },
      { label: "Dataset", cell: (one) => h("span", { class: "mono" }, one.dataset) },
      { label: "State", cell: (one) => [incidentBadge(one), one.holds_data && one.state !== "RESOLVED" && [" ", heldBadge()]] },
      { label: "Owner", cell: (one) => one.owner || h("span", { class: "faint" }, "nobody") },
      { label: "Severity", cell: (one) => one.severity },
      { label: "Noticed", align: "number", cell: (one) => at(one.opened_at) },
      { label: "Over", align: "number", cell: (one) => at(one.resolved_at) },
    ],
    found,
    { caption: "Incidents" },
  );

const LOOKS = { OPEN: ["open", "bad"], ACKNOWLEDGED: ["looked after", "warn"], RESOLVED: ["over", "good"] };

const incidentBadge = (one) => badgeOf(LOOKS, one.state);

export function incident({ incident_id: id, signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Incident", { crumb: ["Incidents", "/console/trust/incidents"] }),
    pending(() => get(`/v1/incidents/${segment(id)}`, {}, signal), (found, again) => view(found, again, signal), {
      height: 480,
      gone: () => nothing("There is no such incident.", { hint: h("a", { href: "/console/trust/incidents" }, "Show the incidents") }),
    }),
  );
}

function view(it, again, signal) {
  const monitor = it.resource.startsWith("monitors/") ? it.resource.slice("monitors/".length) : null;
  return h(
    "div",
    { class: "stack", "data-state": it.state },
    h("p", { class: "verdict" }, it.summary, " ", incidentBadge(it), it.holds_data && it.state !== "RESOLVED" && [" ", heldBadge()]),
    h(
      "div",
      { class: "grid" },
      card("What happened", story(it), { span: 7 }),
      h(
        "div",
        { class: "stack span-5" },
        card("What it is about", about(it), { span: 12 }),
        it.state !== "RESOLVED" && card("What to do", actions(it, again), { span: 12 }),
      ),
    ),
    monitor && card("Monitor", pending(() => get(`/v1/monitors/${segment(monitor)}`, {}, signal), (found) => monitorView(found, it, again, signal), { height: 200, gone: () => h("p", { class: "faint" }, "The contract in force does not promise this any more.") }), { note: "What was measured, and what is expected." }),
    it.dataset && impactCard({ dataset: it.dataset }, { signal, note: "What is made of the dataset, and what was." }),
  );
}

const about = (it) =>
  facts([
    ["Owner", it.owner ? h("span", { class: "strong" }, it.owner) : h("span", { class: "faint" }, "the contract names no team")],
    ["Dataset", it.dataset && h("code", {}, it.dataset)],
    ["Contract", it.contract_id && [h("a", { href: contractPath(it.contract_id) }, it.contract_id), ` ${it.contract_version}`]],
    ["Severity", it.severity],
    ["Noticed by", h("code", {}, it.resource)],
    ["Incident", h("code", {}, it.incident_id)],
    ["Audit", h("a", { href: `/console/trust/audit?${new URLSearchParams({ resource: `incidents/${it.incident_id}` })}` }, "What was done, by whom")],
  ]);

/** The steps of the story that were taken, in their order. */
function story(it) {
  const steps = [
    [it.opened_at, "bad", "Noticed", it.detail],
    it.holds_data && [it.opened_at, "bad", "Held", ["Nothing new is made from ", h("code", {}, it.dataset), ". Outputs made before stay readable and can be replayed."]],
    it.acknowledged_at && [it.acknowledged_at, "warn", `Looked after by ${it.acknowledged_by}`, it.note],
    it.recovered_at && [it.recovered_at, "good", "Kept again", it.holds_data && it.state !== "RESOLVED" ? "The promise is kept; somebody can resume." : "The promise is kept."],
    it.resolved_at && [it.resolved_at, "good", `${it.holds_data ? "Released" : "Over"}, by ${it.resolved_by}`, [it.reason, it.breach_accepted && [" ", badge("breach accepted", "warn", "It was ended although the promise was not kept")]]],
  ].filter(Boolean);
  steps.sort((a, b) => new Date(a[0]) - new Date(b[0]));
  return h(
    "ol",
    { class: "story" },
    steps.map(([when, kind, name, text]) => h("li", { class: kind }, h("span", { class: "dot", "aria-hidden": "true" }), h("div", {}, h("p", { class: "strong" }, name), text && h("p", {}, text), h("p", { class: "faint" }, h("time", { datetime: when }, exact(when)))))),
    it.state !== "RESOLVED" && h("li", { class: "waits" }, h("span", { class: "dot", "aria-hidden": "true" }), h("div", {}, h("p", { class: "faint" }, it.recovered_at ? "Waits to be resumed." : "The promise is not kept yet."))),
  );
}

function actions(it, again) {
  const note = h("input", { name: "note", maxlength: "1000", autocomplete: "off", placeholder: "no personal data" });
  const reason = h("input", { name: "reason", maxlength: "1000", required: true, autocomplete: "off", placeholder: "no personal data" });
  const accept = h("input", { type: "checkbox", name: "accept" });
  const trouble = h("div", { role: "status" });
  const act = async (verb, body, button) => {
    button.disabled = true;
    try {
      const after = await post(`/v1/incidents/${segment(it.incident_id)}:${verb}`, body);
      announce(`The incident is ${words(after.state)}`);
      again();
    } catch (error) {
      fill(trouble, problemBox(error));
      button.disabled = false;
    }
  };
  const look = h("button", { type: "submit", class: "button" }, "I look after it");
  const resolve = h("button", { type: "submit", class: "button primary" }, icon("check"), it.holds_data ? "Resume and resolve" : "Resolve");
  const missing = h("p", { class: "faint" });
  session().then(({ scopes }) => {
    if (scopes.includes("governance.write")) return;
    look.disabled = resolve.disabled = true;
    fill(missing, "Your key has not the scope governance.write.");
  }, () => {});
  return h(
    "div",
    { class: "stack" },
    h("form", { class: "form", onsubmit: (event) => (event.preventDefault(), act("acknowledge", { note: note.value }, look)) }, h("label", { class: "grow" }, "Note", note), look),
    h(
      "form",
      { class: "form", onsubmit: (event) => (event.preventDefault(), act("resolve", { reason: reason.value, accept_breach: accept.checked }, resolve)) },
      h("label", { class: "grow" }, "Reason", reason),
      resolve,
      !it.recovered_at && h("label", { class: "inline" }, accept, "although the promise is not kept"),
    ),
    missing,
    trouble,
  );
}

const [TIMES, APART] = [10, 300]; // milliseconds

/** Wait until the incident knows what its monitor found: it is told a moment later. */
async function told(id, monitor, signal) {
  for (let time = 0; time < TIMES; time += 1) {
    const incident = await get(`/v1/incidents/${segment(id)}`, {}, signal);
    if (incident.state === "RESOLVED" || Boolean(incident.recovered_at) === (monitor.state === "PASSING")) return;
    await pause(APART, signal);
  }
}

function monitorView(one, it, again, signal) {
  return h(
    "div",
    { class: "stack" },
    facts(
      [
        ["Promise", promise(one)],
        ["State", monitorBadge(one.state)],
        ["Expected", one.expectation],
        ["Measured", measured(one.measured, one.unit)],
        ["Found", one.detail],
        ["Looked at", at(one.evaluated_at)],
        ["Next", at(one.next_evaluation_at)],
        ["When broken", one.data_breaker ? `the dataset is held${one.auto_resume ? ", and released as soon as it is kept again" : " until somebody resumes"}` : "an incident, and no more"],
      ],
      { columns: 2 },
    ),
    it.state !== "RESOLVED" && evaluateButton(one.monitor_id, async (found) => (await told(it.incident_id, found, signal), again())),
    resultsView(one),
  );
}
