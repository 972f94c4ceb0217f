/** A text with its lines numbered, and marks beside those that have a finding. */
import { fill, h } from "./dom.js";

const KEPT = "counterfoil:draft:";
const MOST_NUMBERED = 5_000; // lines; more are not numbered, so that typing stays quick

/**
 * An editor. `onText(text)` is called after each change; what was written is kept under `key` while the browser's tab is open.
 * Returns `{element, resumed, text(), mark(findings), go(line), reset(), forget()}`; `resumed` tells that it shows what was written before.
 */
export function editor({ text, key, label, onText }) {
  const area = h("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-label": label });
  const gutter = h("div", { class: "gutter", "aria-hidden": "true" });
  let marks = new Map();
  const kept = sessionStorage.getItem(KEPT + key) ?? text;
  area.value = kept;
  const draw = () => {
    const lines = Math.min(area.value.split("\n").length, MOST_NUMBERED);
    fill(gutter, Array.from({ length: lines }, (_, index) => h("span", { class: marks.has(index + 1) ? "marked" : null, title: marks.get(index + 1) }, index + 1)));
  };
  area.addEventListener("scroll", () => (gutter.scrollTop = area.scrollTop));
  area.addEventListener("input", () => {
    keep(KEPT + key, area.value);
    draw();
    onText(area.value);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Tab" || event.shiftKey || event.ctrlKey || event.altKey || !tabWrites) return;
    event.preventDefault();
    area.setRangeText("  ", area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  });
  let tabWrites = true; // after Escape, Tab leaves the text as everywhere else
  area.addEventListener("keyup", (event) => event.key === "Escape" && (tabWrites = false));
  area.addEventListener("blur", () => (tabWrites = true));
  draw();
  return {
    element: h("div", { class: "editor" }, gutter, area),
    resumed: kept !== text,
    text: () => area.value,
    mark(findings) {
      marks = new Map();
      for (const { line, detail } of findings) if (line > 0) marks.set(line, marks.has(line) ? `${marks.get(line)}\n${detail}` : detail);
      draw();
    },
    go(line) {
      const lines = area.value.split("\n");
      const begin = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
      area.focus();
      area.setSelectionRange(begin, begin + (lines[line - 1]?.length ?? 0));
      area.scrollTop = (line - 5) * parseFloat(getComputedStyle(area).lineHeight);
    },
    reset() {
      area.value = text;
      area.dispatchEvent(new Event("input"));
      area.focus();
    },
    forget: () => sessionStorage.removeItem(KEPT + key),
  };
}

/** Keep a text for coming back to it; where the browser has no room for it, it lives as long as the page. */
function keep(key, text) {
  try {
    sessionStorage.setItem(key, text);
  } catch {
    sessionStorage.removeItem(key);
  }
}
