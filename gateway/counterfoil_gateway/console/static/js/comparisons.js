/** How versions of a contract compare: what breaks for whoever sends and reads, with a record that shows it, and whom by name. */
import { VERDICTS, verdictBadge } from "./contracts.js";
import { fill, h, icon } from "./dom.js";
import { count, plural, title, words } from "./format.js";
import { badge, facts, folded, json } from "./parts.js";

const DIRECTIONS = {
  backward: {
    title: "Who sends",
    PROVEN_COMPATIBLE: "Every record that was accepted before is accepted now: who sends goes on as before.",
    PROVEN_BREAKING: "Records that were accepted before are refused now.",
    UNPROVEN: "Neither a proof nor a record that breaks was found, so it counts as breaking until somebody approves it.",
  },
  forward: {
    title: "Who reads",
    PROVEN_COMPATIBLE: "Every record that is accepted now was accepted before: who reads goes on as before.",
    PROVEN_BREAKING: "Records are accepted now that were refused before: who reads all of a record may meet what it does not know.",
    UNPROVEN: "Neither a proof was found, nor a record that was refused before.",
  },
};

/** How the datasets of a document compare with what is beside it: a verdict for each direction, every break with its record. */
export function comparisonsView(comparisons, { beside }) {
  return h(
    "div",
    { class: "stack" },
    comparisons.map((one) =>
      h(
        "section",
        { class: "comparison", "aria-label": `Dataset ${one.dataset}` },
        h("h3", {}, h("span", { class: "mono" }, one.dataset), h("span", { class: "faint" }, ` against ${beside ?? `version ${one.version}`}`)),
        h("div", { class: "directions" }, direction("backward", one.backward), direction("forward", one.forward)),
      ),
    ),
  );
}

function direction(name, comparison) {
  const says = DIRECTIONS[name];
  const verdict = comparison?.verdict ?? "VERDICT_UNSPECIFIED";
  const more = name === "forward" && verdict === "PROVEN_BREAKING"; // only consumers, below, tell whether that breaks somebody
  const [, , kind, shape] = more ? VERDICTS.UNPROVEN : VERDICTS[verdict] ?? VERDICTS.VERDICT_UNSPECIFIED;
  return h(
    "div",
    { class: `outcome ${kind}`, "data-direction": name, "data-verdict": verdict },
    h("strong", {}, icon(shape), says.title, " ", more ? badge("more is accepted", "warn") : verdictBadge(verdict)),
    h("p", {}, says[verdict] ?? "This was not compared."),
    comparison?.breaks.length > 0 && breaks(comparison.breaks),
  );
}

const FIRST_BREAKS = 5;

function breaks(found) {
  const list = h("ul", { class: "breaks" });
  const draw = (shown) => {
    fill(list, found.slice(0, shown).map((one, index) => breakItem(one, index === 0)));
    if (found.length > shown) list.append(h("li", {}, h("button", { type: "button", class: "plain-button", onclick: () => draw(found.length) }, `Show ${plural(found.length - shown, "more place", "more places")}`)));
  };
  draw(FIRST_BREAKS);
  return list;
}

const breakItem = (one, open) =>
  h(
    "li",
    {},
    h("p", {}, h("code", { class: "strong" }, one.path), " ", h("code", { class: "faint" }, one.keyword)),
    h("p", {}, one.detail),
    hasWitness(one) && folded("Witness: a record that shows it", () => [json(one.witness), h("p", { class: "faint" }, "Made up from the schemas; it is nobody's record.")], { open }),
  );

const hasWitness = ({ witness }) => witness !== undefined && witness !== null && witness !== "";

const LEVELS = {
  PATCH: ["plain", "The same records are valid."],
  MINOR: ["good", "More is valid than before, and nobody has to change anything."],
  MAJOR: ["bad", "Somebody who sends or reads would have to change something, or the contrary could not be proven."],
};

/** How much a version changes by itself, without a look at who reads. */
export const levelBadge = (level) => badge(title(level), LEVELS[level]?.[0], LEVELS[level]?.[1]);

/** How a version as a whole compares with the one in force, or with the one `beside` it, and whom it breaks. */
export function versionView(comparison, { beside } = {}) {
  if (!comparison?.in_force_version) return h("p", {}, "No version of this contract is in force, so nothing can break.");
  return h(
    "div",
    { class: "stack", "data-level": comparison.level },
    facts(
      [
        ["Against", beside ?? `version ${comparison.in_force_version}, in force`],
        ["What it changes", [levelBadge(comparison.level), " ", LEVELS[comparison.level]?.[1]]],
        comparison.needed_version && ["Its number", comparison.version_suffices ? [badge("suffices", "good"), ` at least ${comparison.needed_version} is needed`] : [badge("too low", "bad"), ` call it ${comparison.needed_version} or higher`]],
        ["Approval", comparison.needs_approval ? [badge("needed", "warn"), " a second person has to approve it"] : [badge("not needed", "good"), " it breaks nobody who reads"]],
        comparison.dropped_datasets.length > 0 && ["No contract any more", comparison.dropped_datasets.map((name) => h("code", {}, name, " "))],
      ],
    ),
    comparison.consumer_count > 0 && brokenConsumers(comparison),
    comparison.field_count > 0 && folded(`${plural(comparison.field_count, "field")} added, removed or changed`, () => fieldChanges(comparison.fields, comparison.field_count), { open: comparison.field_count <= 12 }),
  );
}

const brokenConsumers = ({ consumers, consumer_count: total }) => [
  h("h3", { class: "subhead" }, `Who would be broken (${count(total)})`),
  h(
    "ul",
    { class: "broken", "aria-label": "Consumers that would be broken" },
    consumers.map((one) =>
      h(
        "li",
        {},
        h("p", {}, h("span", { class: "strong" }, one.name), " ", verdictBadge(one.verdict)),
        h("p", { class: "faint" }, `reads `, h("code", {}, one.dataset), `, owner ${one.owner}`, one.contact && `, ${one.contact}`),
        one.breaks.length > 0 && breaks(one.breaks),
      ),
    ),
  ),
  total > consumers.length && h("p", { class: "faint" }, `${plural(total - consumers.length, "more is", "more are")} not shown.`),
];

const KINDS = { ADDED: "good", REMOVED: "bad", CHANGED: "warn" };

/** Fields and what becomes of each. */
export const fieldChanges = (fields, total = fields.length) => [
  h("ul", { class: "field-changes" }, fields.map((one) => h("li", {}, badge(words(one.kind), KINDS[one.kind]), " ", h("code", {}, one.path), h("span", { class: "faint" }, ` of ${one.dataset}`)))),
  total > fields.length && h("p", { class: "faint" }, `${plural(total - fields.length, "more is", "more are")} not shown.`),
];
