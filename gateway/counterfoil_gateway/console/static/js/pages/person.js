/** One person: what it met and did, who it is, why its identifiers belong together, and what it is connected with. */
import { get, segment } from "../api.js";
import { markSynthetic } from "../datasets.js";
import { h, icon } from "../dom.js";
import { count, dayOf, clock, exact, micros, plural, title, words } from "../format.js";
import { chip, personPath } from "../identifiers.js";
import { at, badge, card, facts, heading, nothing, paged, pending, shortened, syntheticBadge, table } from "../parts.js";

const RULES = { same_record: "stand in the same record", merge: "were merged by a decision" };
const REFUSALS = {
  SHARED_IDENTIFIER: "one of them is seen with so many others that it joins nobody",
  SPLIT: "somebody decided that they are not one person",
};

export function person({ person_id: id, signal }) {
  const crumb = ["Customers", "/console/customers"];
  const path = `/v1/persons/${segment(id)}`;
  return h(
    "div",
    { class: "stack" },
    heading("Person", { crumb, intro: h("code", {}, id) }),
    pending(
      () => get(`${path}:explain`, {}, signal),
      (explained) => [explained.person.person_id !== id && h("p", { class: "notice" }, "This person was merged into ", h("a", { href: personPath(explained.person.person_id) }, h("code", {}, explained.person.person_id)), ", which is shown."), view(explained, path, signal)],
      {
        height: 520,
        gone: () => nothing("There is no such person.", { hint: h("a", { href: "/console/customers" }, "Find a person by an identifier") }),
      },
    ),
  );
}

function view(explained, path, signal) {
  const { person: it } = explained;
  const marks = h("span");
  markSynthetic(marks, new Set(explained.evidence.map((one) => one.dataset)), syntheticBadge);
  return h(
    "div",
    { class: "grid" },
    h(
      "div",
      { class: "stack span-7" },
      card(
        h("span", {}, "Journey", marks),
        paged((token) => get(`${path}/journey`, { page_size: 60, page_token: token }, signal), "events", timeline, {
          height: 320, empty: nothing("Nothing on the journey yet.", { hint: "A mapping says which records are touchpoints and conversions: GET /v1/graph/mappings." }),
        }),
        { span: 12, note: "Touchpoints and conversions, oldest first.", aside: h("span", { class: "legend" }, h("span", {}, h("span", { class: "key" }), "touchpoint"), h("span", {}, h("span", { class: "key conversion" }), "conversion")) },
      ),
      card("Connected with", paged((token) => get(`/v1/graph/nodes/${segment(`person.${it.person_id}`)}/neighbors`, { page_size: 25, page_token: token }, signal), "neighbors", neighbours, { height: 80, empty: nothing("No edge leads from this person.") }), { span: 12 }),
    ),
    h(
      "div",
      { class: "stack span-5" },
      card("Who it is", who(it), { span: 12 }),
      card(`Identifiers (${count(it.identifiers.length)})`, identifiers(it), { span: 12 }),
      card("Why they belong together", why(explained), { span: 12 }),
      explained.decisions.length > 0 && card("Decisions", decisions(explained.decisions), { span: 12, note: "Merges and splits by people; a merge can be taken back." }),
    ),
  );
}

function who(it) {
  return facts([
    ["Person", shortened(it.person_id)],
    ["First seen", at(it.first_seen_at)],
    ["Last seen", at(it.last_seen_at)],
    ["Touchpoints", count(it.touchpoints)],
    ["Conversions", count(it.conversions)],
    ["Merged into it", it.merged_person_ids.length ? it.merged_person_ids.map((id) => h("div", {}, shortened(id))) : null],
  ]);
}

const identifiers = (it) =>
  h(
    "ul",
    { class: "identifiers" },
    it.identifiers.map((one) =>
      h(
        "li",
        {},
        h("span", {}, chip(one.identifier, { shared: one.shared }), one.shared && [" ", badge("shared", "warn", "Seen with so many others that it joins nobody")]),
        h("span", { class: "faint" }, plural(one.records, "record"), one.last_seen_at && [", last ", h("time", { datetime: one.last_seen_at, title: exact(one.last_seen_at) }, dayOf(one.last_seen_at))]),
      ),
    ),
  );

function why({ person: it, evidence, truncated }) {
  const accepted = evidence.filter((one) => one.accepted);
  const refused = evidence.filter((one) => !one.accepted);
  if (!evidence.length) return h("p", { class: "faint" }, it.identifiers.length > 1 ? "No evidence is shown." : "It has a single identifier; there is nothing to join.");
  return [
    accepted.length > 0 && [h("h3", { class: "subhead" }, `Holds (${count(accepted.length)})`), h("div", { class: "pairs" }, accepted.map(pair))],
    refused.length > 0 && [h("h3", { class: "subhead" }, `Refused (${count(refused.length)})`), h("div", { class: "pairs" }, refused.map(pair))],
    truncated && h("p", { class: "faint" }, "There is more evidence than the 1,000 pieces shown."),
  ];
}

function pair(one) {
  return h(
    "div",
    { class: one.accepted ? "pair" : "pair refused" },
    h("div", { class: "two" }, chip(one.left), h("span", { class: "joins" }, icon(one.accepted ? "link" : "cross", one.accepted ? "belongs with" : "is not joined with")), chip(one.right)),
    h(
      "p",
      { class: "sub" },
      one.accepted ? `They ${RULES[one.rule] ?? words(one.rule)}` : ["Not joined: ", refusal(one.refused_because), " ", h("code", { class: "faint" }, one.refused_because)],
      ` · ${plural(one.records, "record")} of `, h("code", {}, one.dataset), " · ", at(one.happened_at), " · ", h("code", { class: "faint", title: `Record ${one.record_id}` }, `at ${one.position}`),
    ),
  );
}

function refusal(code) {
  const limit = /^LIMIT_(.+)$/.exec(code);
  if (limit) return `a person can have only so many of the type ${limit[1].toLowerCase()}`;
  return REFUSALS[code] ?? words(code);
}

const decisions = (found) =>
  h(
    "div",
    { class: "pairs" },
    found.map((one) =>
      h(
        "div",
        { class: "pair" },
        h("div", { class: "two" }, badge(words(one.kind), one.kind === "MERGE" ? "good" : "warn"), one.reversed_by && badge("taken back", "plain"), one.identifiers.map((identifier) => chip(identifier))),
        h("p", { class: "sub" }, one.reason, " · ", h("span", { class: "strong" }, one.decided_by), " · ", at(one.decided_at)),
      ),
    ),
  );

function timeline(events) {
  let month = "";
  return h(
    "div",
    { class: "timeline" },
    events.map((event) => {
      const date = dayOf(event.happened_at);
      const now = date.slice(date.indexOf(" ") + 1);
      const head = now !== month && h("h3", { class: "month" }, now);
      month = now;
      return [head, eventRow(event, date)];
    }),
  );
}

function eventRow(event, date) {
  const conversion = event.kind === "CONVERSION";
  const source = h("span", { class: "sub", title: `From ${event.position} of the log on, under its ${event.identifier_type}` }, event.records === 1 ? ` · ${event.dataset}` : ` · ${plural(event.records, "record")} of ${event.dataset}`);
  const what = conversion ? h("span", { class: "strong" }, title(event.type)) : [h("span", {}, title(event.channel || event.type)), event.campaign && [" · campaign ", campaignLink(event.campaign)], event.channel && event.type && h("span", { class: "sub" }, ` · ${words(event.type)}`)];
  return h(
    "div",
    { class: conversion ? "event conversion" : "event" },
    h("time", { datetime: event.happened_at, title: exact(event.happened_at) }, `${date.split(" ").slice(0, 2).join(" ")} ${clock(event.happened_at)}`),
    h("span", { class: "dot", role: "img", "aria-label": words(event.kind) }),
    h("span", { class: "what" }, what, source),
    h("span", { class: "amount" }, conversion && (event.currency || event.value_micros) ? micros(event.value_micros, event.currency, 2) : ""),
  );
}

const campaignLink = (key) => h("span", { class: "mono" }, key);

const neighbours = (found) =>
  table(
    [
      { label: "What", head: "row", cell: ({ node }) => (node.type === "person" ? h("a", { href: personPath(node.key) }, shortened(node.key)) : [node.name || node.key, node.name && node.name !== node.key && h("span", { class: "faint" }, ` ${node.key}`)]) },
      { label: "Type", cell: ({ node }) => words(node.type) },
      { label: "Edge", cell: ({ edge }) => words(edge.type) },
      { label: "Valid", cell: ({ edge, node }) => validity(edge.valid_from ?? node.valid_from, edge.valid_to ?? node.valid_to) },
      { label: "Records", align: "number", cell: ({ edge }) => count(edge.records) },
    ],
    found,
    { caption: "Neighbours", dense: true },
  );

function validity(from, to) {
  if (!from && !to) return h("span", { class: "faint" }, "always");
  return `${from ? dayOf(from) : "always"} – ${to ? dayOf(to) : "no end"}`;
}
