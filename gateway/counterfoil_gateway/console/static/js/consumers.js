/** Consumers: who says that they read which fields of a dataset, registering one, and taking one away. */
import { all, post, segment } from "./api.js";
import { announce, fill, h, icon } from "./dom.js";
import { plural } from "./format.js";
import { at, badge, folded, nothing, problemBox, renewed, table } from "./parts.js";
import { session } from "./session.js";

const FEW = 4;

/** Those who read any of these datasets, and a form to register another. */
export function consumersView(datasets, signal) {
  return renewed(
    async () => {
      const [found, { scopes }] = await Promise.all([Promise.all(datasets.map((dataset) => all("/v1/consumers", "consumers", { query: { dataset }, signal }))), session()]);
      return { consumers: found.flat(), write: scopes.includes("contracts.write") };
    },
    ({ consumers, write }, again) => h("div", { class: "stack" }, consumerTable(consumers, write && again), write && folded("Register another", () => registration(datasets, again))),
    { height: 80 },
  );
}

const consumerTable = (consumers, again) =>
  table(
    [
      { label: "Consumer", head: "row", sort: (one) => one.name, cell: (one) => [one.name, one.service && [" ", badge(one.service, "accent", "A service of the platform; it says itself what it reads")]] },
      { label: "Owner", cell: (one) => [one.owner, one.contact && h("div", { class: "faint" }, one.contact)] },
      { label: "Dataset", cell: (one) => h("span", { class: "mono" }, one.dataset) },
      { label: "Reads", cell: fieldsRead },
      { label: "Versions", cell: (one) => one.version_range || h("span", { class: "faint" }, "the one in force") },
      { label: "Registered", align: "number", cell: (one) => at(one.updated_at) },
      ...(again ? [{ label: "", cell: (one) => !one.service && removal(one, again) }] : []),
    ],
    consumers,
    { caption: "Consumers", empty: nothing("Nobody is registered.", { hint: "Who reads and is registered is not broken unasked." }) },
  );

function fieldsRead(one) {
  if (!one.fields.length) return "the whole record";
  const item = (path) => [h("code", {}, path.replace(/^\$\./, "")), one.undeclared_fields.includes(path) && [" ", badge("not declared", "warn", "No contract in force declares it: nothing promises that it will be there")]];
  const list = (paths) => paths.map((path) => h("div", {}, item(path)));
  return one.fields.length <= FEW ? list(one.fields) : folded(plural(one.fields.length, "field"), () => list(one.fields));
}

function removal(one, again) {
  const trouble = h("div", { role: "status" });
  const button = h("button", { type: "button", class: "plain-button", "aria-label": `Remove ${one.name}`, onclick: remove }, "Remove");
  async function remove() {
    button.disabled = true;
    try {
      await post(`/v1/consumers/${segment(one.consumer_id)}:remove`);
      announce(`${one.name} is removed`);
      again();
    } catch (error) {
      fill(trouble, problemBox(error));
      button.disabled = false;
    }
  }
  return [button, trouble];
}

function registration(datasets, again) {
  const field = (name, more = {}) => h("input", { name, maxlength: "200", autocomplete: "off", ...more });
  const name = field("name", { required: true });
  const owner = field("owner", { required: true });
  const contact = field("contact");
  const fields = field("fields", { maxlength: "10000", placeholder: "order_id, items[*].sku; none = the whole record" });
  const range = field("version_range", { placeholder: "1.x; none = the one in force" });
  const dataset = h("select", { name: "dataset" }, datasets.map((each) => h("option", { value: each }, each)));
  const trouble = h("div", { role: "status" });
  const button = h("button", { type: "submit", class: "button primary" }, icon("check"), "Register");
  async function register(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      const paths = fields.value.split(",").map((path) => path.trim()).filter(Boolean);
      await post("/v1/consumers", { name: name.value, dataset: dataset.value, fields: paths, owner: owner.value, contact: contact.value, version_range: range.value });
      announce(`${name.value} is registered`);
      again();
    } catch (error) {
      fill(trouble, problemBox(error));
      button.disabled = false;
    }
  }
  return h(
    "form",
    { class: "form", onsubmit: register },
    h("label", {}, "Consumer", name), h("label", {}, "Owner (a team)", owner), h("label", {}, "Contact", contact), h("label", {}, "Dataset", dataset),
    h("label", { class: "grow" }, "Fields it reads", fields), h("label", {}, "Versions", range), button, trouble,
  );
}
