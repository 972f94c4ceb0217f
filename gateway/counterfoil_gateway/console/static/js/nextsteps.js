/** What can be done with a contract version: propose, activate, deprecate, retire, each with its reason and what came of it. */
import { post, segment } from "./api.js";
import { versionView } from "./comparisons.js";
import { findingsView } from "./contracts.js";
import { announce, fill, h } from "./dom.js";
import { dayBegins, moment, words } from "./format.js";
import { pending, problemBox } from "./parts.js";
import { session } from "./session.js";

const DAYS_UNTIL_SUNSET = 30;

/** The steps that a version in this state can take. */
function stepsOf(version, versions) {
  const again = version.state === "DEPRECATED" && !version.in_force;
  const steps = [];
  if (version.state === "DRAFT") steps.push({ verb: "propose", text: "Propose", primary: true, says: "It comes into force at once when it breaks nobody who reads; otherwise a second person has to approve it." });
  if (again) steps.push({ verb: "propose", text: "Put in force again", primary: true, says: `It takes ${versions.find((one) => one.in_force)?.version ?? "the present version"} out of force: at once when it breaks nobody who reads; otherwise a second person has to approve it.` });
  if (version.in_force && version.state === "ACTIVE") steps.push({ verb: "deprecate", text: "Announce its end", says: "It stays in force until another one is, or until it is retired after that day.", sunset: true });
  if (version.state === "DRAFT" || version.state === "DEPRECATED") steps.push({ verb: "retire", text: "Retire", danger: true, says: "It never comes into force again. Refused while somebody reads it." });
  return steps;
}

const NOTHING = {
  PROPOSED: "It waits for a second person; the change above is what they approve.",
  RETIRED: "It was retired and never comes into force again.",
};

/** A form with the steps; `done` is called after one was taken. */
export function nextSteps(version, versions, done) {
  const steps = stepsOf(version, versions);
  const standing = [version.reason && h("p", {}, "Why: ", version.reason), version.sunset_at && h("p", {}, `Its end is announced for ${moment(version.sunset_at)}.`)];
  if (!steps.length) return h("div", { class: "stack" }, standing, h("p", { class: "faint" }, NOTHING[version.state] ?? "Nothing is to be done."));
  const reason = h("input", { name: "reason", maxlength: "1000", required: true, autocomplete: "off" });
  const day = new Date(Date.now() + DAYS_UNTIL_SUNSET * 86_400_000).toISOString().slice(0, 10);
  const sunset = steps.some((step) => step.sunset) && h("input", { type: "date", name: "sunset", value: day, required: true });
  const result = h("div", { role: "status" });
  const buttons = steps.map((step) => h("button", { type: "button", class: `button ${step.primary ? "primary" : step.danger ? "danger" : ""}`, onclick: () => take(step) }, step.text));
  async function take(step) {
    if (!reason.reportValidity() || (step.sunset && !sunset.reportValidity())) return;
    buttons.forEach((button) => (button.disabled = true));
    fill(result, h("p", { class: "faint" }, "Comparing …"));
    try {
      const body = { reason: reason.value, ...(step.sunset && { sunset_at: dayBegins(sunset.value) }) };
      const found = await post(`/v1/contracts/${segment(version.contract_id)}/versions/${segment(version.version)}:${step.verb}`, body, { slow: true });
      const after = found.version?.state ? found.version : found;
      announce(`Version ${version.version} is ${words(after.state)}`);
      done();
    } catch (error) {
      fill(result, problemBox(error));
      buttons.forEach((button) => (button.disabled = false));
    }
  }
  const note = h("p", { class: "faint" });
  session().then(({ scopes }) => scopes.includes("contracts.write") || (fill(note, "Your key has not the scope contracts.write."), buttons.forEach((button) => (button.disabled = true))), () => {});
  return h(
    "div",
    { class: "stack" },
    standing,
    steps[0].verb === "propose" && pending(() => post("/v1/contracts:check", { document: version.document }, { slow: true }), (found) => (found.findings.length ? findingsView(found.findings) : versionView(found.comparison)), { height: 110 }),
    h("form", { class: "form", onsubmit: (event) => event.preventDefault() }, h("label", { class: "grow" }, "Reason", reason), sunset && h("label", {}, "Ends on", sunset)),
    steps.map((step, index) => h("div", { class: "step" }, buttons[index], h("p", { class: "faint" }, step.says))),
    note,
    result,
  );
}
