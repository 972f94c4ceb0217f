/** What forms are made of: text to copy, rows that can be added and removed, a deed with its button and what came of it. */
import { announce, append, fill, h, icon } from "./dom.js";
import { problemBox } from "./parts.js";

/** A text with a button that copies it; where the browser does not let a page copy, the button selects it. */
export function copied(text, label) {
  const shown = h("pre", { class: "json", tabindex: "0", "aria-label": label }, text);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied");
      fill(button, icon("check"), "Copied");
    } catch {
      getSelection().selectAllChildren(shown);
      announce("Selected");
    }
  }
  const button = h("button", { type: "button", class: "button", onclick: copy }, "Copy");
  return h("div", { class: "copied" }, shown, button);
}

/**
 * Rows of a form. `row(subject)` returns `{fields, value()}`; the answer's `add(subject)` adds one to begin with, and its `values()` are those
 * of the rows there are.
 */
export function removable(text, row) {
  const rows = new Set();
  const place = h("div", { class: "stack" });
  function add(subject) {
    const made = row(subject);
    const line = h("div", { class: "form", role: "group" }, made.fields, h("button", { type: "button", class: "plain-button", onclick: remove }, "Remove"));
    function remove() {
      rows.delete(made);
      line.remove();
      more.focus();
    }
    rows.add(made);
    place.append(line);
    return line;
  }
  const more = h("button", { type: "button", class: "plain-button", onclick: () => add().querySelector("input, select").focus() }, text);
  return { element: h("div", { class: "stack" }, place, h("div", {}, more)), add, values: () => [...rows].map((made) => made.value()) };
}

/**
 * A form that does one thing: its fields, the button that does it, and below what went wrong. `deed()` does it; the button waits meanwhile.
 * What `deed` returns, if anything, is shown in the place of the problem.
 */
export function deed(text, does, { fields = [], shape, kind = "", disabled = false, label } = {}) {
  const result = h("div", { role: "status", class: "result" });
  const button = h("button", { type: "submit", class: `button ${kind}`, disabled, "aria-label": label }, shape && icon(shape), text);
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      fill(result, await does());
    } catch (error) {
      if (error.name !== "AbortError") fill(result, problemBox(error));
    }
    button.disabled = disabled;
  }
  return append(h("form", { class: "form", onsubmit: submit }), [fields, button, result]);
}

/** Says that the key lacks a scope. */
export const missing = (scope) => h("p", { class: "faint" }, `Your key has not the scope ${scope}.`);
