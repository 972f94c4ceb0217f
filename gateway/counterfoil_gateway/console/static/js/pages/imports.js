/** Imports: a file is dropped here, looked at, and sent; those there were, newest first. */
import { all, get } from "../api.js";
import { contracted } from "../datasets.js";
import { announce, fill, h, icon } from "../dom.js";
import { deed, missing } from "../forms.js";
import { count, percent, size } from "../format.js";
import { importBadge, importPath, upload } from "../imports.js";
import { formatOf, preview } from "../preview.js";
import { at, badge, card, heading, nothing, paged, pending, table } from "../parts.js";
import { session } from "../session.js";

const FORMATS = [["CSV", "CSV"], ["JSONL", "JSON lines"], ["PARQUET", "Parquet"], ["AIRBYTE", "Airbyte messages"]];
const DECIMALS = [["", "as programs write them: 1234.5"], [",", "with a comma: 1.234,5"], [".", "with thousands apart: 1,234.5"]];
const EXAMPLE = "counterfoil import sales.csv --dataset sales";

export function imports({ query, signal, go }) {
  return h(
    "div",
    { class: "stack" },
    heading("Imports", { intro: "Whole files into a dataset. The same file again adds nothing, and what a file brought can be taken back." }),
    card("Import a file", pending(() => beginning(signal), (found) => begin(found, { dataset: query.get("dataset") ?? "", signal, go }), { height: 120 })),
    card("Newest first", paged((token) => get("/v1/imports", { page_size: 25, page_token: token }, signal), "imports", list, { height: 200, empty: nothing("No file was imported yet.", { hint: "Drop one above, or:", commands: [EXAMPLE] }) })),
  );
}

const list = (found) =>
  table(
    [
      { label: "File", head: "row", cell: (one) => [h("a", { href: importPath(one.import_id) }, one.file_name || "without a name"), h("div", { class: "faint" }, `${size(one.file_bytes)}${one.mapping && `, read as ${one.mapping}`}`)] },
      { label: "Dataset", cell: (one) => (one.dataset ? h("code", {}, one.dataset) : h("span", { class: "faint" }, "one per stream")) },
      { label: "State", cell: (one) => [importBadge(one.state), one.error && h("div", { class: "faint told" }, one.error.detail)] },
      { label: "Accepted", align: "number", cell: (one) => count(one.rows_accepted) },
      { label: "There before", align: "number", cell: (one) => count(one.rows_duplicate) },
      { label: "Quarantined", align: "number", cell: (one) => (one.rows_quarantined ? badge(count(one.rows_quarantined), "warn") : "0") },
      { label: "Sent", align: "number", cell: (one) => [at(one.created_at), h("div", { class: "faint" }, `by ${one.created_by}`)] },
    ],
    found,
    { caption: "Imports" },
  );

async function beginning(signal) {
  const [datasets, mappings, { scopes }] = await Promise.all([contracted(signal), all("/v1/import-mappings", "mappings", { signal }), session()]);
  return { datasets, mappings, may: scopes.includes("ingest.write") };
}

/** A text of the API, in which code stands between backticks. */
const coded = (text = "") => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

/** A place to drop a file on, which then holds the form for it. */
function begin(known, context) {
  if (!known.may) return missing("ingest.write");
  const place = h("div");
  const input = h("input", { type: "file", class: "visually-hidden", id: "file", onchange: () => input.files[0] && take(input.files[0]) });
  const zone = h(
    "label",
    { class: "drop", for: "file", ondragover: over, ondragleave: out, ondrop: drop },
    icon("upload"), h("span", {}, "Drop a file here, or choose one: CSV, JSON lines, Parquet or what an Airbyte source wrote, packed by gzip or not"), input,
  );
  function over(event) {
    event.preventDefault();
    zone.classList.add("over");
  }
  function out() {
    zone.classList.remove("over");
  }
  function drop(event) {
    event.preventDefault();
    out();
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  }
  function take(file) {
    announce(`${file.name} is chosen`);
    fill(place, sending(file, known, context));
    place.querySelector("select").focus();
  }
  return h("div", { class: "stack" }, zone, place);
}

function sending(file, { datasets, mappings }, { dataset: wanted, signal, go }) {
  const format = h("select", { name: "format", onchange: formed }, FORMATS.map(([value, text]) => h("option", { value }, text)));
  const mapping = h("select", { name: "mapping", onchange: mapped });
  const dataset = h("select", { name: "dataset" });
  const decimal = h("label", {}, "Its numbers are written", h("select", { name: "decimal" }, DECIMALS.map(([value, text]) => h("option", { value }, text))));
  const parameters = h("div", { class: "form parameters" });
  const about = h("p", { class: "faint about" });
  const looked = h("div", { class: "stack" });
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Sent" });
  format.value = formatOf(file.name);
  function formed() {
    const fitting = mappings.filter((one) => one.formats.includes(format.value));
    fill(mapping, h("option", { value: "" }, "as they are"), fitting.map((one) => h("option", { value: one.name }, one.description.split(",")[0] || one.name)));
    fill(looked, pending(() => preview(file, format.value === "AIRBYTE" ? "JSONL" : format.value), (shown) => shown, { height: 160 }));
    mapped();
  }
  function mapped() {
    const chosen = mappings.find((one) => one.name === mapping.value);
    const own = chosen ? `as the mapping says: ${chosen.dataset}` : format.value === "AIRBYTE" ? "one per stream, named as it" : null;
    fill(dataset, h("option", { value: "" }, own ?? "choose one"), datasets.map((each) => h("option", { value: each }, each)));
    dataset.required = !own;
    dataset.value = !own && datasets.includes(wanted) ? wanted : "";
    decimal.hidden = Boolean(chosen) || format.value !== "CSV";
    fill(about, coded(chosen?.description));
    fill(parameters, chosen?.parameters.map((one) => h("label", { class: "grow" }, one.name, h("input", { name: one.name, required: one.required, maxlength: "200", autocomplete: "off", "aria-describedby": `about-${one.name}` }), h("span", { class: "faint", id: `about-${one.name}` }, coded(one.description)))));
    parameters.hidden = !chosen?.parameters.length;
  }
  async function send() {
    const asked = decimal.hidden ? parameters.querySelectorAll("input") : decimal.querySelectorAll("select");
    const told = [...asked].filter((input) => input.value).map((input) => ["parameter", `${input.name}=${input.value}`]);
    const query = [["format", format.value], ["dataset", dataset.value], ["mapping", mapping.value], ["file_name", file.name], ...told].filter(([, value]) => value);
    bar.hidden = false;
    try {
      const begun = await upload(file, query, { signal, onProgress: (share) => ((bar.value = share), (bar.title = percent(share))) });
      announce(`${file.name} is sent`);
      go(importPath(begun.import_id));
    } finally {
      bar.hidden = true;
    }
  }
  formed();
  const fields = [
    h("label", {}, "Format", format), h("label", {}, "Its rows are read", mapping), h("label", {}, "Into the dataset", dataset), decimal,
  ];
  return h(
    "div",
    { class: "stack" },
    h("h3", {}, file.name, " ", h("span", { class: "faint" }, size(file.size))),
    deed("Import", send, { fields: [fields, about, parameters], shape: "upload", kind: "primary" }),
    bar,
    looked,
  );
}
