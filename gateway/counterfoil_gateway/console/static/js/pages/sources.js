/** The workspace's sources: where events come from, whether they come, and a new one. */
import { all, get, post } from "../api.js";
import { announce, h } from "../dom.js";
import { deed, missing, removable } from "../forms.js";
import { count } from "../format.js";
import { badge, card, heading, paged, pending, since, table } from "../parts.js";
import { session } from "../session.js";
import { PROTOCOLS, protocolName, sourcePath, writeKeys } from "../sources.js";

const EVERYTHING = "events";

export function sources({ signal, go }) {
  return h(
    "div",
    { class: "stack" },
    heading("Sources", { intro: "Apps and sites that send events. Each has a write key of its own, and says which of its events go to which dataset." }),
    card(null, paged((token) => get("/v1/sources", { page_size: 100, page_token: token }, signal), "sources", list, { height: 120 })),
    card("New source", pending(() => beginning(signal), (found) => creation(found, go), { height: 130 }), { note: "The SDKs that you have work as they are: they get this host and the new write key." }),
  );
}

const list = (found) =>
  table(
    [
      { label: "Source", head: "row", sort: (one) => one.display_name, cell: (one) => h("a", { href: sourcePath(one.source_id) }, one.display_name) },
      { label: "Speaks", cell: (one) => protocolName(one.protocol) },
      { label: "Goes to", cell: (one) => targets(one.mappings) },
      { label: "Events", align: "number", sort: (one) => one.events, cell: (one) => count(one.events) },
      { label: "Last event", align: "number", sort: (one) => one.last_event_at ?? "", cell: (one) => (one.first_event_at ? since(one.last_event_at) : badge("none yet", "warn")) },
      { label: "Write key", cell: (one) => h("code", { class: "faint" }, `…${one.write_key_last_four}`) },
    ],
    found,
    { caption: "Sources" },
  );

/** The datasets of mappings, each once. */
const targets = (mappings) => [...new Set(mappings.map((one) => one.dataset))].map((name, index) => [index ? ", " : "", h("code", {}, name)]);

/** What the form needs to know: the datasets that exist, and whether this key may create a source. */
async function beginning(signal) {
  const [datasets, { scopes }] = await Promise.all([all("/v1/datasets", "datasets", { signal }), session()]);
  return { datasets: datasets.map((one) => one.dataset), may: scopes.includes("ingest.admin") };
}

function creation({ datasets, may }, go) {
  if (!may) return missing("ingest.admin");
  const name = h("input", { name: "display_name", required: true, maxlength: "200", autocomplete: "off", placeholder: "Shop, web" });
  const protocol = h("select", { name: "protocol" }, PROTOCOLS.map(([value, text]) => h("option", { value }, text)));
  const rest = datasetInput(EVERYTHING, "rest");
  const mappings = removable("Send some events elsewhere", mappingRow);
  async function create() {
    const body = { display_name: name.value, protocol: protocol.value, mappings: [...mappings.values(), { dataset: rest.value }] };
    const { source, write_key: key } = await post("/v1/sources", body);
    writeKeys.keep(source.source_id, key);
    announce(`${source.display_name} is created`);
    go(sourcePath(source.source_id));
  }
  const fields = [
    h("datalist", { id: "datasets" }, datasets.map((each) => h("option", { value: each }))),
    h("label", { class: "grow" }, "Name", name), h("label", {}, "Its SDK is of", protocol), h("label", {}, "Its events go to", rest), mappings.element,
  ];
  return deed("Create", create, { fields, shape: "plus", kind: "primary" });
}

const datasetInput = (value, name) => h("input", { name, value, required: true, pattern: "[a-z][a-z0-9_]{0,62}", title: "Lower case, digits and _", list: "datasets", autocomplete: "off" });

function mappingRow() {
  const type = h("input", { name: "type", maxlength: "64", placeholder: "track; none = any", autocomplete: "off" });
  const event = h("input", { name: "event", maxlength: "200", placeholder: "Order Completed; none = any", autocomplete: "off" });
  const dataset = datasetInput("", "dataset");
  return {
    fields: [h("label", {}, "Type", type), h("label", { class: "grow" }, "Event", event), h("label", {}, "Dataset", dataset)],
    value: () => ({ type: type.value, event: event.value, dataset: dataset.value }),
  };
}
