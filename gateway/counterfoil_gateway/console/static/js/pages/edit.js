/** The editor of a contract: the document, what is wrong in which line, what it does to who sends and reads, and submitting it. */
import { get, post, segment } from "../api.js";
import { check, trialsView } from "../checks.js";
import { comparisonsView, versionView } from "../comparisons.js";
import { contractPath, findingsView } from "../contracts.js";
import { announce, fill, h, icon } from "../dom.js";
import { plural } from "../format.js";
import { editor } from "../editor.js";
import { card, folded, heading, nothing, pending, problemBox } from "../parts.js";

const QUIET = 600; // milliseconds without a key before the text is checked

const EMPTY = `apiVersion: v3.1.0
kind: DataContract
id: my-contract
name: What people call it
version: 1.0.0
status: draft
team:
  name: my-team
schema:
  - name: my_dataset
    logicalType: object
    properties:
      - name: message_id
        logicalType: string
        description: Names a record, so that sending it again adds nothing.
      - name: happened_at
        logicalType: timestamp
        required: true
`;

export function edit({ query, signal, go }) {
  const from = Object.fromEntries(query);
  return h(
    "div",
    { class: "stack" },
    heading("Draft", { crumb: from.contract ? [from.contract, contractPath(from.contract, from.version)] : ["Drafts", "/console/sources/drafts"], intro: "An ODCS document. It is checked while you write; nothing is kept before you submit it." }),
    pending(() => beginning(from, signal), (found) => view(found, { key: query.toString(), from, signal, go }), { height: 640, gone: () => nothing("What this draft begins with is no longer kept.", { hint: h("a", { href: "/console/sources/drafts" }, "Begin another draft") }) }),
  );
}

/** The document to begin with: of a contract version, drafted from a description, or an empty one. */
async function beginning({ contract, version, check: check_id, contract_id, owner, dataset }, signal) {
  if (contract) return { ...(await get(`/v1/contracts/${segment(contract)}/versions/${segment(version)}`, {}, signal)), open_questions: [] };
  if (check_id) return post("/v1/contracts:draft", { check_id, contract_id, owner, dataset }, { signal });
  return { document: EMPTY, open_questions: [] };
}

function view({ document: text, open_questions: questions }, { key, from, signal, go }) {
  const found = h("div", { class: "stack", role: "status" });
  const tried = h("div", { role: "status" });
  const trouble = h("div", { role: "status" });
  const submit = h("button", { type: "button", class: "button primary", disabled: true, onclick: keep }, icon("check"), "Submit as a draft");
  const attempt = h("button", { type: "button", class: "button", disabled: true, onclick: trial }, "Try it on recent records");
  const written = editor({ text, key, label: "The contract's document", onText: soon });
  let asked = new AbortController();
  let timer;
  signal.addEventListener("abort", () => (clearTimeout(timer), asked.abort()), { once: true });

  function soon() {
    clearTimeout(timer);
    asked.abort();
    submit.disabled = attempt.disabled = true;
    found.setAttribute("data-checked", "no");
    timer = setTimeout(look, QUIET);
  }
  async function look() {
    asked = new AbortController();
    try {
      const answer = await post("/v1/contracts:check", { document: written.text() }, { slow: true, signal: asked.signal });
      written.mark(answer.findings);
      fill(found, checked(answer, written.go));
      submit.disabled = attempt.disabled = answer.findings.length > 0;
      announce(answer.findings.length ? plural(answer.findings.length, "finding") : "The document can be submitted");
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(found, problemBox(error, { retry: look }));
    }
    found.setAttribute("data-checked", "yes");
  }
  async function trial() {
    attempt.disabled = true;
    fill(tried, h("p", { class: "faint" }, "Holding recent records against it …"));
    try {
      fill(tried, trialsView(await check({ trial: { document: written.text() } }, signal)));
    } catch (error) {
      if (error.name !== "AbortError") fill(tried, problemBox(error));
    }
    attempt.disabled = false;
  }
  async function keep() {
    submit.disabled = true;
    try {
      const kept = await post("/v1/contracts", { document: written.text() }, { slow: true });
      written.forget();
      announce(`Version ${kept.version} is submitted`);
      go(contractPath(kept.contract_id, kept.version));
    } catch (error) {
      fill(trouble, problemBox(error));
      submit.disabled = false;
    }
  }
  const resumed = written.resumed && h("p", { class: "notice" }, "This is what you wrote before and did not submit. ", h("button", { type: "button", class: "plain-button", onclick: () => (resumed.remove(), written.reset()) }, "Begin again"));
  look();
  return h(
    "div",
    { class: "writing" },
    card(from.contract ? `Begun with version ${from.version}` : "Document", [resumed, written.element], { span: 12, note: "Press Escape, then Tab, to leave the text by keyboard." }),
    h(
      "div",
      { class: "stack" },
      questions.length > 0 && card("For you to decide", h("ol", { class: "questions" }, questions.map((one) => h("li", {}, one))), { note: "The draft says what was seen. Only you know what is meant." }),
      card("Findings", found),
      card("Next", h("div", { class: "stack" }, h("div", { class: "form" }, attempt, submit), tried, trouble), { note: "A draft is not in force: it is proposed on the contract's page." }),
    ),
  );
}

function checked({ findings, compiled, comparisons, comparison }, go) {
  if (findings.length) return findingsView(findings, { go });
  return [
    h("p", { class: "complete" }, icon("check"), h("span", {}, "No finding. It governs ", compiled.map((one, index) => [index ? ", " : "", h("code", {}, one.dataset)]), ".")),
    versionView(comparison),
    comparisons.length > 0 && folded("What it does to records, with witnesses", () => comparisonsView(comparisons, {}), { open: comparisons.some((one) => one.backward.verdict !== "PROVEN_COMPATIBLE") }),
  ];
}
