/** Contracts as several pages show them: their addresses, states and verdicts, and findings in a document. */
import { segment } from "./api.js";
import { h, icon } from "./dom.js";
import { plural } from "./format.js";
import { badge, stateBadge } from "./parts.js";

export const contractPath = (id, version) => `/console/sources/contracts/${segment(id)}${version ? `?${new URLSearchParams({ version })}` : ""}`;

/** The address of the page with two versions side by side. */
export const comparisonPath = (id, from, to) => `${contractPath(id)}/compare?${new URLSearchParams({ from, to })}`;

/** The address of the editor with the document of a version in it. */
export const editorPath = (id, version) => `/console/sources/drafts/edit?${new URLSearchParams({ contract: id, version })}`;

/** Where a version is in its life; one whose end is announced may be in force still. */
export const versionBadges = (version) => [stateBadge(version.state), version.in_force && version.state !== "ACTIVE" && [" ", badge("in force", "good")]];

/** By verdict: what it says, its kind of badge and of box, its icon. */
export const VERDICTS = {
  PROVEN_COMPATIBLE: ["proven compatible", "good", "match", "check"],
  PROVEN_BREAKING: ["breaking", "bad", "mismatch", "cross"],
  UNPROVEN: ["unproven", "warn", "", "warn"],
  VERDICT_UNSPECIFIED: ["not compared", "plain", "", "warn"],
};

/** What is known of a comparison, in its colour. */
export function verdictBadge(verdict) {
  const [text, kind] = VERDICTS[verdict] ?? VERDICTS.VERDICT_UNSPECIFIED;
  return badge(text, kind);
}

/** Findings of a document: where, what, and the rule; `go(line)` when a click should lead there. */
export function findingsView(findings, { go } = {}) {
  return h(
    "ul",
    { class: "findings", "aria-label": plural(findings.length, "finding") },
    findings.map((one) =>
      h(
        "li",
        {},
        icon("cross"),
        h(
          "span",
          {},
          one.line > 0 && [go ? h("button", { type: "button", class: "plain-button", onclick: () => go(one.line) }, `Line ${one.line}`) : h("span", { class: "strong" }, `Line ${one.line}`), " "],
          h("code", {}, one.path), ": ", one.detail, " ", h("code", { class: "faint" }, one.reason),
        ),
      ),
    ),
  );
}
