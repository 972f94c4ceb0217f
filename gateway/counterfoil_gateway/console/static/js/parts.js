/** What pages are made of: cards, tables, badges, states of loading and failing, and the number that opens its receipt. */
import { announce, append, fill, h, icon } from "./dom.js";
import { ago, exact, moment, shortId, title, words } from "./format.js";

/** A number with a receipt: dotted underline and icon, one look everywhere. */
export function receipted(text, receiptId, { quiet = false } = {}) {
  if (!receiptId) return text;
  const label = `${text instanceof Node ? text.textContent : text}: open its receipt`;
  return h(
    "a",
    { class: quiet ? "receipted quiet" : "receipted", href: receiptPath(receiptId), title: "Open the receipt of this number", "aria-label": label },
    text,
    icon("receipt"),
  );
}

export const receiptPath = (id) => `/console/trust/receipts/${encodeURIComponent(id)}`;

/** A link that says it is a receipt's. */
export const receiptLink = (id) => h("a", { class: "receipt-link", href: receiptPath(id) }, icon("receipt"), "Receipt");

/** A heading of a page. */
export function heading(text, { intro, crumb, actions, badges } = {}) {
  return h(
    "header",
    { class: "heading" },
    h(
      "div",
      {},
      crumb && h("p", { class: "crumb" }, h("a", { href: crumb[1] }, crumb[0])),
      h("h1", { tabindex: "-1" }, text, badges && [" ", badges]),
      intro && h("p", {}, intro),
    ),
    actions && h("div", { class: "actions" }, actions),
  );
}

/** A card with its heading. */
export function card(text, body, { span = 12, aside, note, id, level = "h2" } = {}) {
  return h(
    "section",
    { class: `card span-${span}`, id, "aria-label": typeof text === "string" ? text : undefined },
    text && h("header", { class: "card-head" }, h("div", {}, h(level, {}, text), note && h("p", { class: "note" }, note)), aside && h("div", { class: "aside" }, aside)),
    h("div", { class: "card-body" }, body),
  );
}

/** A short label. Kinds: plain, good, warn, bad, accent, synthetic. */
export const badge = (text, kind = "plain", tip) => h("span", { class: `badge badge-${kind}`, title: tip }, text);

/** A badge for a state: `looks` has its text and its kind; one that it does not know is shown as it is called. */
export const badgeOf = (looks, state, tip) => badge(...(looks[state] ?? [words(state), "plain"]), tip);

/** Says that what stands beside it was made up. */
export const syntheticBadge = () =>
  badge("synthetic", "synthetic", "Made by a generator with known truth; it describes no real customer");

const STATES = {
  ACTIVE: "good", CHAMPION: "good", APPLIED: "good", APPROVED: "good", MATCH: "good", GRANTED: "good", ACCEPTED: "good", DONE: "good",
  PENDING: "warn", PENDING_APPROVAL: "warn", PROPOSED: "warn", RUNTIME_CHANGED: "warn", DRAFT: "plain", EXPIRED: "plain",
  REJECTED: "bad", FAILED: "bad", MISMATCH: "bad", WITHDRAWN: "bad", INPUT_ERASED: "warn",
};

/** A state in its colour. */
export const stateBadge = (state) => badge(title(state), STATES[state] ?? "plain");

const TIERS = { IMPACT_TIER_LOW: ["Low impact", "plain"], IMPACT_TIER_MEDIUM: ["Medium impact", "warn"], IMPACT_TIER_HIGH: ["High impact", "bad"] };

/** How much harm a wrong output can do. */
export function tierBadge(tier) {
  const [text, kind] = TIERS[tier] ?? ["Impact not said", "plain"];
  return badge(text, kind);
}

/** A moment in words, with the exact one on hovering. */
export const since = (iso) => (iso ? h("time", { datetime: iso, title: exact(iso) }, ago(iso)) : h("span", { class: "faint" }, "never"));

/** A moment as date and time. */
export const at = (iso) => (iso ? h("time", { datetime: iso, title: exact(iso) }, moment(iso)) : h("span", { class: "faint" }, "—"));

/** A hash or id in a fixed-width font, shortened, whole on hovering. */
export const hash = (text, length = 12) =>
  text ? h("code", { title: text }, text.length > length ? `${text.slice(0, length)}…` : text) : h("span", { class: "faint" }, "—");

/** An id that keeps its telling end. */
export const shortened = (id) => h("code", { title: id }, shortId(id));

/** What is not known, which is not zero. */
export const unknown = (text = "not known") => h("span", { class: "faint", title: "Not known, which is not zero" }, text);

/**
 * A table. Columns: `{label, cell(row), align?: "number", sort?(row), head?: "row", tip?, share?(row)}`; a column with `head: "row"` names its
 * row, and one with `share` is tinted by it, from 0 to 1.
 */
export function table(columns, rows, { caption, empty, dense = false, sorted } = {}) {
  if (!rows.length) return empty ?? nothing("Nothing here yet.");
  const body = h("tbody");
  const order = { column: sorted?.column ?? null, down: sorted?.down ?? true };
  const heads = columns.map((column, index) =>
    h(
      "th",
      { scope: "col", class: column.align, title: column.tip },
      column.sort ? h("button", { type: "button", class: "sort", onclick: () => sortBy(index) }, column.label) : column.label,
    ),
  );
  function draw() {
    const shown = order.column === null ? rows : [...rows].sort((a, b) => compare(columns[order.column].sort(a), columns[order.column].sort(b)) * (order.down ? -1 : 1));
    heads.forEach((head, index) => {
      if (index === order.column) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    fill(
      body,
      shown.map((row) =>
        h(
          "tr",
          {},
          columns.map((column) => h(column.head === "row" ? "th" : "td", { scope: column.head, class: column.align, style: tint(column, row) }, column.cell(row))),
        ),
      ),
    );
  }
  function sortBy(index) {
    order.down = order.column === index ? !order.down : columns[index].align === "number";
    order.column = index;
    draw();
  }
  draw();
  const frame = h(
    "div",
    { class: "table-frame", role: "region", "aria-label": caption },
    h("table", { class: dense ? "dense" : null }, caption && h("caption", { class: "visually-hidden" }, caption), h("thead", {}, h("tr", {}, heads)), body),
  );
  frames.observe(frame);
  return frame;
}

/** A table that is wider than its place can be scrolled by keyboard; the others are no stop on the way. */
const frames = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  }
});

const tint = ({ share }, row) => share && { "background-color": `color-mix(in srgb, var(--accent) ${Math.round(16 * share(row))}%, transparent)` };

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

/** Names and their values. Pairs of which the value is null are left out. */
export function facts(pairs, { columns = 1 } = {}) {
  return h(
    "dl",
    { class: `facts facts-${columns}` },
    pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** One figure with what it is. */
export function figure(label, value, { sub, kind, id } = {}) {
  return h("div", { class: `figure ${kind ?? ""}`, id }, h("p", { class: "figure-label" }, label), h("p", { class: "figure-value" }, value), h("p", { class: "figure-sub" }, sub ?? "\u00a0"));
}

/** Says that there is nothing, and what to do next; commands can be copied. */
export function nothing(text, { hint, commands = [] } = {}) {
  return h("div", { class: "empty" }, h("p", { class: "empty-text" }, text), hint && h("p", {}, hint), commands.map((command) => h("pre", {}, h("code", {}, command))));
}

/** What went wrong, why, and the trace to look at. */
export function problemBox(problem, { retry } = {}) {
  const denied = problem.status === 403;
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "problem-title" }, icon("warn"), denied ? "Not allowed" : problem.title || "Something went wrong"),
    h("p", {}, problem.detail || problem.message),
    facts([
      ["Reason", problem.reason && h("code", {}, problem.reason)],
      ["Policy", problem.metadata?.policy_id && h("code", {}, problem.metadata.policy_id)],
      ["Trace", problem.traceId && h("code", { class: "trace" }, problem.traceId)],
    ]),
    problem.errors?.length > 0 && h("ul", {}, problem.errors.map((error) => h("li", {}, h("code", {}, error.field), ` ${error.detail ?? error.code}`))),
    retry && h("button", { type: "button", class: "button", onclick: retry }, "Try again"),
  );
}

/**
 * A place for something that is on its way: keeps `height` pixels, shows it when it is there, and what went wrong when not.
 * `ask` is called again on retrying.
 */
export function pending(ask, render, { height = 120, gone } = {}) {
  const place = h("div", { class: "pending", "aria-busy": "true", style: { "min-height": `${height}px` } });
  async function begin() {
    fill(place, h("div", { class: "skeleton", "aria-hidden": "true" }), h("span", { class: "visually-hidden" }, "Loading"));
    place.setAttribute("aria-busy", "true");
    try {
      const found = await ask();
      fill(place, await render(found, begin));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!("status" in error)) console.error(error);
      fill(place, gone && error.status === 404 ? gone(error) : problemBox(error, { retry: begin }));
    }
    place.classList.add("settled");
    place.removeAttribute("aria-busy");
    place.style.removeProperty("min-height");
  }
  begin();
  return place;
}

/** The same, anew after something in it was changed: `render` gets what asks and draws again. */
export function renewed(ask, render, options) {
  const place = h("div");
  const again = () => fill(place, pending(ask, (found) => render(found, again), options));
  again();
  return place;
}

/** Rows that come in pages: the first at once, others on asking. */
export function paged(ask, key, render, { empty, height = 160 } = {}) {
  return pending(
    () => ask(""),
    (first) => {
      if (!first[key].length) return empty ?? nothing("Nothing here yet.");
      const rows = [...first[key]];
      let token = first.next_page_token;
      const place = h("div");
      const more = h("button", { type: "button", class: "button" }, "Show more");
      const trouble = h("div");
      const foot = h("div", { class: "more" }, more, trouble);
      more.addEventListener("click", async () => {
        more.disabled = true;
        try {
          const page = await ask(token);
          rows.push(...page[key]);
          token = page.next_page_token;
          fill(trouble);
          draw();
          announce(`${page[key].length} more`);
        } catch (error) {
          fill(trouble, problemBox(error));
        }
        more.disabled = false;
      });
      function draw() {
        fill(place, render(rows));
        foot.hidden = !token;
      }
      draw();
      return [place, foot];
    },
    { height },
  );
}

/** Choices of which one holds. */
export function choice(label, options, chosen, pick) {
  const group = h("div", { class: "choice", role: "group", "aria-label": label });
  append(
    group,
    options.map(([value, text]) =>
      h(
        "button",
        {
          type: "button", "aria-pressed": String(value === chosen),
          onclick: (event) => {
            for (const button of group.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
            pick(value);
          },
        },
        text,
      ),
    ),
  );
  return group;
}

/** Notes on what is late, missing or left out. */
export function completeness(found) {
  if (!found) return null;
  if (found.complete || !found.notes.length) return h("p", { class: "complete" }, icon("check"), "Nothing known to be late, missing or left out.");
  return h(
    "ul",
    { class: "gaps" },
    found.notes.map((note) => h("li", {}, icon("warn"), h("span", {}, note.detail, " ", h("span", { class: "faint mono" }, note.reason)))),
  );
}

/** JSON, indented. */
export function json(value) {
  let shown = value;
  if (typeof value === "string") {
    try {
      shown = JSON.parse(value);
    } catch {
      shown = value;
    }
  }
  return h("pre", { class: "json", tabindex: "0" }, typeof shown === "string" ? shown : JSON.stringify(shown, null, 2));
}

/** Something folded away; `body` is made when it is first opened. */
export function folded(text, body, { open = false } = {}) {
  const place = h("div");
  const make = () => place.childNodes.length || append(place, [body()]);
  if (open) make();
  return h("details", { class: "fold", open, ontoggle: (event) => event.target.open && make() }, h("summary", {}, text), place);
}
