/** The monitors of a dataset with the forms that change them: more that is watched, bounds, owners, off and on. */
import { all, call, post, segment } from "./api.js";
import { announce, fill, h } from "./dom.js";
import { deed, missing } from "./forms.js";
import { monitorTable } from "./monitors.js";
import { folded, renewed } from "./parts.js";
import { reconciliationsView } from "./reconciliations.js";
import { session } from "./session.js";

const METRICS = {
  freshness: ["how old the newest record is", "seconds"],
  volume: ["how unusual the number of records is", "robust deviations"],
  nullShare: ["how often a property is missing", "points of percent"],
  distribution: ["how far its values are from what they were", "population stability index"],
  schemaDrift: ["properties that are new, gone or of another type", "properties"],
  delay: ["from receipt to the lake", "seconds"],
  reconciliation: ["totals that others report", "totals"],
};

/** The table of a dataset's monitors, and below it the form for another. */
export function monitorsView(dataset, signal) {
  return renewed(
    async () => {
      const [monitors, { scopes }] = await Promise.all([all("/v1/monitors", "monitors", { query: { dataset }, signal }), session()]);
      return { monitors, may: scopes.includes("ingest.admin") };
    },
    ({ monitors, may }, again) => [
      monitorTable(monitors, { signal, set: may && ((one) => setting(one, again)) }),
      folded("Totals that others report", () => reconciliationsView(dataset, signal)),
      folded("Watch something more", () => (may ? creation(dataset, again) : missing("ingest.admin"))),
    ],
    { height: 110 },
  );
}

const bound = (metric, value) => h("input", { name: "threshold", type: "number", min: "0", step: "any", value, placeholder: "the usual", title: METRICS[metric]?.[1] });

const inline = (text, input) => h("label", { class: "inline" }, input, text);

function setting(one, again) {
  const path = `/v1/monitors/${segment(one.monitor_id)}`;
  const threshold = bound(one.metric, one.threshold);
  const owner = h("input", { name: "owner", maxlength: "200", value: one.owner, autocomplete: "off" });
  const holds = h("input", { type: "checkbox", name: "data_breaker", checked: one.data_breaker });
  const enabled = h("input", { type: "checkbox", name: "enabled", checked: one.enabled });
  const change = async () => {
    await call("PATCH", path, { body: { owner: owner.value, data_breaker: holds.checked, enabled: enabled.checked, etag: one.etag, ...(threshold.value && { threshold: threshold.valueAsNumber }) } });
    announce("The monitor is changed");
    again();
  };
  const remove = async () => {
    await call("DELETE", path, { query: { etag: one.etag } });
    announce("The monitor is as it was before anybody set it");
    again();
  };
  const fields = [h("label", {}, `Bound, in ${METRICS[one.metric]?.[1] ?? one.unit}`, threshold), h("label", {}, "Owner", owner), inline("holds the dataset when broken", holds), inline("is looked at", enabled)];
  return h("div", { class: "stack" }, deed("Change", change, { fields }), one.origin === "CONFIGURED" && deed("Undo what was set", remove, { kind: "danger" }));
}

function creation(dataset, again) {
  const name = h("input", { name: "name", required: true, pattern: "[a-z][a-z0-9_\\-]{0,62}", title: "Lower case, digits, _ and -", autocomplete: "off" });
  const metric = h("select", { name: "metric", onchange: turn }, Object.entries(METRICS).map(([value, [text]]) => h("option", { value }, text)));
  const property = h("input", { name: "property", maxlength: "255", autocomplete: "off", placeholder: "none = each" });
  const about = h("label", {}, "Property", property);
  const threshold = bound("freshness");
  const unit = h("span");
  const owner = h("input", { name: "owner", maxlength: "200", autocomplete: "off", placeholder: "the contract's team" });
  const holds = h("input", { type: "checkbox", name: "data_breaker" });
  function turn() {
    about.hidden = !["freshness", "nullShare", "distribution"].includes(metric.value);
    property.placeholder = metric.value === "freshness" ? "when it was received" : "each";
    fill(unit, `Bound, in ${METRICS[metric.value][1]}`);
  }
  turn();
  const create = async () => {
    const body = { dataset, name: name.value, metric: metric.value, property: about.hidden ? "" : property.value, owner: owner.value, data_breaker: holds.checked };
    await post("/v1/monitors", { ...body, ...(threshold.value && { threshold: threshold.valueAsNumber }) });
    announce("It is watched");
    again();
  };
  const fields = [h("label", {}, "Name", name), h("label", {}, "What is watched", metric), about, h("label", {}, unit, threshold), h("label", {}, "Owner", owner), inline("holds the dataset when broken", holds)];
  return deed("Watch it", create, { shape: "plus", kind: "primary", fields });
}
