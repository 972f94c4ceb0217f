/** One source: the lines that its app needs, whether its first event came, its events as they come, and a new write key. */
import { get, post, segment } from "../api.js";
import { announce, fill, h, icon } from "../dom.js";
import { copied, deed, missing } from "../forms.js";
import { clock, count, exact, plural } from "../format.js";
import { at, card, facts, folded, heading, json, nothing, pending, since, table } from "../parts.js";
import { session } from "../session.js";
import { snippets } from "../snippets.js";
import { protocolName, writeKeys } from "../sources.js";
import { quarantinePath } from "../quarantine.js";
import { follow } from "../tail.js";

const SHOWN = 25; // newest events
const DRAW = 300; // milliseconds: however fast events come, they are drawn no oftener

export function source({ source_id: id, signal, go }) {
  return h(
    "div",
    { class: "stack" },
    heading("Source", { crumb: ["Sources", "/console/sources"] }),
    pending(() => get(`/v1/sources/${segment(id)}`, {}, signal), (found) => view(found, { signal, go }), {
      height: 560,
      gone: () => nothing("There is no such source.", { hint: h("a", { href: "/console/sources" }, "Show the sources") }),
    }),
  );
}

function view(it, { signal, go }) {
  const key = writeKeys.of(it.source_id);
  return h(
    "div",
    { class: "stack" },
    h("p", { class: "verdict" }, it.display_name),
    key && h("div", { class: "notice stack" }, h("p", {}, "This is its write key. It is shown until you leave the console or load it anew, and never again; whoever has it can send events."), copied(key, "Write key")),
    arrivals(it, signal),
    h(
      "div",
      { class: "grid" },
      h(
        "div",
        { class: "stack span-8" },
        card("Put it into your app", snippets(it.protocol, key), { note: key ? "With the write key in place." : "Put the write key where it says WRITE_KEY. Who has lost it gives the source a new one." }),
        card("Where its events go", mappingTable(it.mappings), { note: "The first that fits decides; what none fits goes to the dataset unplanned, and nothing is lost." }),
      ),
      h(
        "div",
        { class: "stack span-4" },
        card("About it", facts([
          ["Speaks", protocolName(it.protocol)],
          ["Created", at(it.created_at)],
          ["Write key", h("code", {}, `…${it.write_key_last_four}`)],
          ["Id", h("code", {}, it.source_id)],
        ])),
        card("Write key", pending(session, ({ scopes }) => rotation(it, scopes.includes("ingest.admin"), () => go(location.pathname, { replace: true })), { height: 80 }), { note: "A new one, when the old one was seen by somebody or is lost." }),
      ),
    ),
  );
}

const mappingTable = (mappings) =>
  table(
    [
      { label: "Type", cell: (one) => one.type || h("span", { class: "faint" }, "any") },
      { label: "Event", cell: (one) => one.event || h("span", { class: "faint" }, "any") },
      { label: "Dataset", head: "row", cell: (one) => h("code", {}, one.dataset) },
    ],
    mappings,
    { caption: "Mappings", dense: true },
  );

/** Whether the first event came, and events as they come. */
function arrivals(it, signal) {
  const news = h("div", { role: "status", class: "arrival" });
  const rows = h("div");
  const pulse = h("span", { class: "pulse", role: "img" });
  const seen = [];
  let came = 0;
  let first = it.first_event_at;
  let drawn = false;
  const draw = () => {
    drawn = false;
    if (!first) fill(news, h("p", { class: "waiting" }, "Waiting for its first event. Run the lines below; it shows here by itself."));
    else fill(news, h("p", { class: "complete" }, icon("check"), h("span", {}, "Its first event was seen ", since(first), ". ", it.events + came > 0 && plural(it.events + came, "event"), it.last_event_at || seen.length ? [", the newest ", since(seen[0]?.received_at ?? it.last_event_at)] : "", ".")));
    fill(rows, seen.length > 0 && eventTable(seen));
  };
  follow({
    signal,
    query: { source_id: it.source_id },
    onRecord: (record) => {
      if (!first) announce("Its first event was seen");
      first ??= record.received_at;
      came += 1;
      seen.unshift(record);
      seen.length = Math.min(seen.length, SHOWN);
      if (!drawn) setTimeout(draw, DRAW);
      drawn = true;
    },
    onState: (state) => {
      pulse.className = `pulse ${state === "on" ? "on" : "off"}`;
      pulse.setAttribute("aria-label", `Live tail: ${state}`);
    },
  });
  draw();
  return card(
    h("span", { class: "live" }, "Its events, live ", pulse),
    [news, rows],
    { id: "arrivals", note: "As they are accepted, while this page is open.", aside: h("a", { class: "button", href: quarantinePath({ source_id: it.source_id }) }, "In quarantine") },
  );
}

const eventTable = (seen) =>
  table(
    [
      { label: "Received", cell: (one) => h("time", { datetime: one.received_at, title: exact(one.received_at) }, clock(one.received_at)) },
      { label: "Event", head: "row", cell: (one) => one.data.event || one.data.type || h("span", { class: "faint" }, "without a name") },
      { label: "Dataset", cell: (one) => h("code", {}, one.dataset) },
      { label: "Offset", align: "number", cell: (one) => count(one.position.offset) },
      { label: "Record", cell: (one) => folded(one.record_id, () => json(one.data)) },
    ],
    seen,
    { caption: "Newest events", dense: true },
  );

const KEPT = [["86400s", "24 hours"], ["604800s", "7 days"], ["2592000s", "30 days"], ["0s", "not at all"]];

function rotation(it, may, again) {
  if (!may) return missing("ingest.admin");
  const kept = h("select", { name: "keep_previous_for" }, KEPT.map(([value, text]) => h("option", { value }, text)));
  async function rotate() {
    const { source: after, write_key: key } = await post(`/v1/sources/${segment(it.source_id)}:rotate_key`, { keep_previous_for: kept.value });
    writeKeys.keep(after.source_id, key);
    announce("It has a new write key");
    again();
  }
  return deed("New write key", rotate, { shape: "replay", fields: h("label", {}, "The old one works on for", kept) });
}
