/** Customers: find a person by an identifier, or go through the list. */
import { get, post } from "../api.js";
import { fill, h, icon } from "../dom.js";
import { count } from "../format.js";
import { chips, personPath } from "../identifiers.js";
import { at, card, heading, nothing, paged, problemBox, shortened, table } from "../parts.js";

const BUILT_IN = ["user_id", "email", "phone", "anonymous_id", "household_id"];

export function customers({ query, signal, go }) {
  const several = query.get("several") === "true";
  return h(
    "div",
    { class: "stack" },
    heading("Customers", { intro: "Persons, resolved from the identifiers in your records. Each one can say why its identifiers belong together." }),
    card("Find a person", search({ query, signal, go })),
    card(
      several ? "Persons with several identifiers" : "Persons",
      paged((token) => get("/v1/persons", { page_size: 25, page_token: token, min_identifiers: several ? 2 : 0 }, signal), "persons", personsTable, {
        height: 420,
        empty: several
          ? nothing("No person has more than one identifier.", { hint: h("a", { href: "/console/customers" }, "Show all persons") })
          : nothing("No person yet.", { hint: "Persons appear as soon as a record with an identifier comes in. Send an event, or run the demo:", commands: ["counterfoil demo"] }),
      }),
      {
        note: "In the order in which they were first seen.",
        aside: h(
          "label",
          { class: "inline" },
          h("input", { type: "checkbox", checked: several, onchange: (event) => go(event.target.checked ? "/console/customers?several=true" : "/console/customers") }),
          " Only those with several identifiers",
        ),
      },
    ),
  );
}

function search({ query, signal, go }) {
  const type = h("input", { name: "type", list: "identifier-types", required: true, pattern: "[a-z][a-z0-9_]{0,62}", value: query.get("type") ?? "user_id", autocomplete: "off", spellcheck: "false" });
  const value = h("input", { name: "value", required: true, maxlength: "500", value: query.get("value") ?? "", autocomplete: "off", spellcheck: "false", placeholder: "as it is in your records" });
  const found = h("div", { role: "status" });
  const button = h("button", { type: "submit", class: "button primary" }, icon("search"), "Find");
  const look = async () => {
    button.disabled = true;
    fill(found);
    try {
      const person = await post("/v1/persons:lookup", { type: type.value, value: value.value }, { signal });
      go(personPath(person.person_id));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(found, error.status === 404 ? nothing(`Nobody has the ${type.value} ${value.value}.`, { hint: "It may be spelled in another way, or its record is in quarantine." }) : problemBox(error));
    }
    button.disabled = false;
  };
  const form = h(
    "form",
    { class: "form", role: "search", onsubmit: (event) => (event.preventDefault(), look()) },
    h("label", {}, "Identifier type", type),
    h("datalist", { id: "identifier-types" }, BUILT_IN.map((name) => h("option", { value: name }))),
    h("label", { class: "grow" }, "Value", value),
    button,
  );
  if (query.get("value")) look();
  return h("div", { class: "stack" }, form, found);
}

const personsTable = (persons) =>
  table(
    [
      { label: "Person", head: "row", cell: (person) => h("a", { href: personPath(person.person_id) }, shortened(person.person_id)) },
      { label: "Identifiers", cell: (person) => chips(person.identifiers, { limit: 3 }) },
      { label: "Touchpoints", align: "number", cell: (person) => count(person.touchpoints) },
      { label: "Conversions", align: "number", cell: (person) => count(person.conversions) },
      { label: "First seen", align: "number", cell: (person) => at(person.first_seen_at) },
      { label: "Last seen", align: "number", cell: (person) => at(person.last_seen_at) },
    ],
    persons,
    { caption: "Persons" },
  );
