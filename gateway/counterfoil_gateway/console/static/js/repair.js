/** Repair: fixes field by field or a JSON Patch, tried before anything is kept; then into the log, or set aside. */
import { post } from "./api.js";
import { announce, fill, h } from "./dom.js";
import { deed, removable } from "./forms.js";
import { count, plural } from "./format.js";
import { choice, folded, json } from "./parts.js";
import { faultList, quarantinedPath } from "./quarantine.js";

const TRIED = 20; // records that are tried at once
const PAGE = 500;
const BEGUN = 8; // fixes that are begun with
const CHANGES = [["convert", "make it a"], ["default", "if missing, put"], ["rename", "call it"], ["drop", "take it out"]];
const TYPES = [["STRING", "text"], ["INTEGER", "whole number"], ["NUMBER", "number"], ["BOOLEAN", "true or false"], ["TIMESTAMP", "time, from seconds or milliseconds"]];

/**
 * The forms for records: `subject` is `{quarantine_ids}` or `{filter}`. `findings` are those to begin with; `datasets` are those that
 * a record can be moved to; `done` is called after something was kept.
 */
export function repairForms(subject, { findings, datasets, done }) {
  const several = Boolean(subject.filter);
  return h(
    "div",
    { class: "stack" },
    repair(subject, { findings, datasets, done, several }),
    h("div", { class: "split" }, replay(subject, { done, several }), discard(subject, { done, several })),
  );
}

function repair(subject, { findings, datasets, done, several }) {
  const paths = [...new Set(findings.map((one) => one.path))];
  const fixes = removable("Add a fix", (finding) => fixRow(paths, finding));
  const patch = h("textarea", { name: "patch", rows: "7", spellcheck: "false", class: "mono", "aria-label": "JSON Patch", placeholder: '[{"op": "replace", "path": "/amount", "value": 5}]' });
  const dataset = h("select", { name: "dataset" }, h("option", { value: "" }, "where it was"), datasets.map((each) => h("option", { value: each }, each)));
  const fresh = h("input", { type: "checkbox", name: "new_record_ids", checked: findings.some((one) => one.reason === "MESSAGE_ID_REUSED") });
  const found = h("div", { role: "status" });
  const way = h("div");
  let by = "fixes";
  const show = (chosen) => {
    by = chosen;
    fill(way, by === "fixes" ? fixes.element : patch);
  };
  show(by);
  paths.slice(0, BEGUN).forEach((path) => fixes.add(findings.find((one) => one.path === path)));
  const asked = () => ({
    ...subject,
    ...(by === "fixes" ? { fixes: fixes.values() } : { patch: parsed(patch.value, "The JSON Patch") }),
    dataset: dataset.value,
    new_record_ids: fresh.checked,
  });
  async function attempt() {
    const answer = await post("/v1/quarantine:repair", { ...asked(), dry_run: true, page_size: TRIED }, { slow: true });
    announce(`${plural(answer.records.filter((one) => one.passes).length, "record")} would pass`);
    fill(found, tried(answer, { several, rest: Boolean(answer.next_page_token) }));
  }
  async function carry() {
    const body = asked();
    const told = { records: 0, unfit: 0 };
    for await (const { records } of pages("/v1/quarantine:repair", body)) {
      told.records += records.length;
      told.unfit += records.filter((one) => one.repaired === null).length;
    }
    const verdicts = await replayed(subject);
    announce("Repaired and replayed");
    fill(found, told.unfit > 0 && h("p", { class: "notice" }, `The repair does not fit ${plural(told.unfit, "record")} of ${count(told.records)}; they are as they were.`), outcome(verdicts));
    done(verdicts);
  }
  const trial = deed("Try it", attempt);
  const keep = deed(several ? "Repair and replay all" : "Repair and replay", carry, { shape: "check", kind: "primary" });
  return h(
    "div",
    { class: "stack" },
    choice("How", [["fixes", "Field by field"], ["patch", "JSON Patch"]], by, show),
    way,
    h("div", { class: "form" }, h("label", {}, "It goes to", dataset), h("label", { class: "inline" }, fresh, "under a new id: it bears that of another record")),
    h("div", { class: "form" }, trial, keep),
    found,
  );
}

const LIKELY = { CONTRACT_UNKNOWN_FIELD: "drop", CONTRACT_REQUIRED: "default" };

/** One fix as the API takes it; of a finding it begins with what likely mends it. */
function fixRow(paths, finding = { path: "$.", reason: "", detail: "" }) {
  const list = `paths-${Math.random().toString(36).slice(2)}`;
  const path = h("input", { name: "path", required: true, maxlength: "1000", value: finding.path, list, autocomplete: "off", class: "mono", size: "28" });
  const change = h("select", { name: "change", onchange: turn }, CHANGES.map(([value, text]) => h("option", { value }, text)));
  const type = h("select", { name: "type" }, TYPES.map(([value, text]) => h("option", { value }, text)));
  const text = h("input", { name: "value", required: true, autocomplete: "off", class: "mono" });
  const place = h("label");
  change.value = LIKELY[finding.reason] ?? "convert";
  type.value = TYPES.find(([value]) => finding.detail.toLowerCase().includes(value.toLowerCase()))?.[0] ?? "STRING";
  function turn() {
    text.placeholder = change.value === "rename" ? "new_name" : '0, "text", null …';
    fill(place, { convert: ["Type", type], default: ["JSON value", text], rename: ["Name", text], drop: [] }[change.value]);
  }
  turn();
  const value = { convert: () => type.value, default: () => parsed(text.value, "The value"), rename: () => text.value, drop: () => true };
  return {
    fields: [h("datalist", { id: list }, paths.map((each) => h("option", { value: each }))), h("label", {}, "Path", path), h("label", {}, "Do", change), place],
    value: () => ({ path: path.value, [change.value]: value[change.value]() }),
  };
}

function parsed(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw Object.assign(new Error(`${name} is no JSON: ${error.message}. A text needs quotes.`), { status: 0, title: "It cannot be read" });
  }
}

/** Page after page of a deed over many records. */
async function* pages(path, body) {
  let token = "";
  do {
    const page = await post(path, { ...body, page_size: PAGE, page_token: token }, { slow: true });
    yield page;
    token = page.next_page_token;
  } while (token);
}

async function replayed(subject) {
  const verdicts = [];
  for await (const page of pages("/v1/quarantine:replay", subject)) verdicts.push(...page.verdicts);
  return verdicts;
}

function tried({ records }, { several, rest }) {
  const pass = records.filter((one) => one.passes).length;
  return h(
    "div",
    { class: "stack" },
    several || records.length !== 1
      ? h("p", { class: "strong" }, `${count(pass)} of ${rest ? "the first " : ""}${plural(records.length, "record")} would pass.`)
      : h("p", { class: "strong" }, pass ? "It would pass." : "It would not pass yet."),
    records.map((one) =>
      h(
        "div",
        { class: `outcome ${one.passes ? "match" : "mismatch"}` },
        several && h("a", { href: quarantinedPath(one.quarantine_id) }, one.record_id || "without id"),
        one.findings.length > 0 && faultList(one.findings),
        one.repaired !== null && (several ? folded("As repaired", () => json(one.repaired)) : json(one.repaired)),
      ),
    ),
  );
}

const OUTCOMES = [
  ["ACCEPTED", "match", (n) => `${plural(n, "record is", "records are")} in the log.`, (n) => `${plural(n, "record")} would be accepted.`],
  ["DUPLICATE", "match", (n) => `${plural(n, "record")} the log had already; nothing was added.`, (n) => `${plural(n, "record")} the log has already.`],
  ["QUARANTINED", "mismatch", (n) => `${plural(n, "record")} still ${n === 1 ? "breaks its" : "break their"} contract and ${n === 1 ? "stays" : "stay"} open.`, (n) => `${plural(n, "record")} would still break ${n === 1 ? "its" : "their"} contract.`],
  ["RETRY", "", (n) => `${plural(n, "record")} could not be judged now. Try again.`, (n) => `${plural(n, "record")} cannot be judged now.`],
];

/** What became of records, or would. */
function outcome(verdicts, { dry = false } = {}) {
  if (!verdicts.length) return h("p", { class: "faint" }, "There is no such open record.");
  return OUTCOMES.map(([name, look, is, would]) => {
    const those = verdicts.filter((one) => one.outcome === name);
    const faults = new Map(those.flatMap((one) => one.findings).map((one) => [`${one.reason} ${one.path}`, one]));
    return those.length > 0 && h("div", { class: `outcome ${look}`, "data-outcome": name }, h("p", {}, (dry ? would : is)(those.length)), faults.size > 0 && faultList([...faults.values()].slice(0, TRIED)));
  });
}

function replay(subject, { done, several }) {
  const trial = deed("What would come of it?", async () => {
    const { verdicts, next_page_token: more } = await post("/v1/quarantine:replay", { ...subject, dry_run: true, page_size: PAGE }, { slow: true });
    announce("Tried");
    return [more && h("p", { class: "faint" }, `Of the first ${count(verdicts.length)}:`), outcome(verdicts, { dry: true })];
  });
  const carry = deed(several ? "Replay all" : "Replay", async () => {
    const verdicts = await replayed(subject);
    announce("Replayed");
    done(verdicts);
    return outcome(verdicts);
  }, { shape: "replay" });
  return h("div", { class: "stack" }, h("h3", {}, "Replay as it is"), h("p", { class: "faint" }, "Under the contracts now in force, e.g. after one was mended. Nothing can come into the log twice."), h("div", { class: "form" }, trial, carry));
}

function discard(subject, { done, several }) {
  const reason = h("input", { name: "reason", required: true, maxlength: "500", autocomplete: "off", placeholder: "no personal data" });
  const carry = async () => {
    let discarded = 0;
    for await (const page of pages("/v1/quarantine:discard", { ...subject, reason: reason.value })) discarded += page.discarded;
    announce("Set aside");
    done();
    return h("p", {}, `${plural(discarded, "record is", "records are")} set aside.`);
  };
  return h("div", { class: "stack" }, h("h3", {}, "Set aside"), h("p", { class: "faint" }, "It is kept, and can be repaired or replayed later all the same."), deed(several ? "Discard all" : "Discard", carry, { kind: "danger", fields: h("label", { class: "grow" }, "Reason", reason) }));
}
