/** Composes the console: the menu, the pages, and what is shown when the session has ended. */
import { get } from "./api.js";
import { announce, fill, h, icon } from "./dom.js";
import { currentTimezone, useTimezone } from "./format.js";
import { heading, nothing, problemBox } from "./parts.js";
import { Router } from "./router.js";
import { session, signOut } from "./session.js";
import { audit } from "./pages/audit.js";
import { campaigns } from "./pages/campaigns.js";
import { change, changes } from "./pages/changes.js";
import { comparison } from "./pages/comparison.js";
import { contract } from "./pages/contract.js";
import { contracts } from "./pages/contracts.js";
import { customers } from "./pages/customers.js";
import { dataset, datasets } from "./pages/datasets.js";
import { drafts, profile } from "./pages/drafts.js";
import { edit } from "./pages/edit.js";
import { imported } from "./pages/import.js";
import { imports } from "./pages/imports.js";
import { incident, incidents } from "./pages/incidents.js";
import { lineage } from "./pages/lineage.js";
import { overview } from "./pages/overview.js";
import { person } from "./pages/person.js";
import { policies } from "./pages/policies.js";
import { quarantine, quarantined } from "./pages/quarantine.js";
import { receipt } from "./pages/receipt.js";
import { receipts } from "./pages/receipts.js";
import { retention } from "./pages/retention.js";
import { source } from "./pages/source.js";
import { sources } from "./pages/sources.js";

const ROUTES = [
  { path: "/console", page: overview, menu: "/console/" },
  { path: "/console/overview", page: overview, menu: "/console/" },
  { path: "/console/sources", page: sources, menu: "/console/sources" },
  { path: "/console/sources/imports", page: imports, menu: "/console/sources/imports" },
  { path: "/console/sources/imports/{import_id}", page: imported, menu: "/console/sources/imports" },
  { path: "/console/sources/datasets", page: datasets, menu: "/console/sources/datasets" },
  { path: "/console/sources/datasets/{dataset}", page: dataset, menu: "/console/sources/datasets" },
  { path: "/console/sources/quarantine", page: quarantine, menu: "/console/sources/quarantine" },
  { path: "/console/sources/quarantine/{quarantine_id}", page: quarantined, menu: "/console/sources/quarantine" },
  { path: "/console/sources/contracts", page: contracts, menu: "/console/sources/contracts" },
  { path: "/console/sources/contracts/{contract_id}", page: contract, menu: "/console/sources/contracts" },
  { path: "/console/sources/contracts/{contract_id}/compare", page: comparison, menu: "/console/sources/contracts" },
  { path: "/console/sources/drafts", page: drafts, menu: "/console/sources/drafts" },
  { path: "/console/sources/drafts/profile", page: profile, menu: "/console/sources/drafts" },
  { path: "/console/sources/drafts/edit", page: edit, menu: "/console/sources/drafts" },
  { path: "/console/sources/lineage", page: lineage, menu: "/console/sources/lineage" },
  { path: "/console/sources/{source_id}", page: source, menu: "/console/sources" },
  { path: "/console/customers", page: customers, menu: "/console/customers" },
  { path: "/console/customers/{person_id}", page: person, menu: "/console/customers" },
  { path: "/console/campaigns", page: campaigns, menu: "/console/campaigns" },
  { path: "/console/trust", page: receipts, menu: "/console/trust/receipts" },
  { path: "/console/trust/receipts", page: receipts, menu: "/console/trust/receipts" },
  { path: "/console/trust/receipts/{receipt_id}", page: receipt, menu: "/console/trust/receipts" },
  { path: "/console/trust/changes", page: changes, menu: "/console/trust/changes" },
  { path: "/console/trust/changes/{change_id}", page: change, menu: "/console/trust/changes" },
  { path: "/console/trust/policies", page: policies, menu: "/console/trust/policies" },
  { path: "/console/trust/incidents", page: incidents, menu: "/console/trust/incidents" },
  { path: "/console/trust/incidents/{incident_id}", page: incident, menu: "/console/trust/incidents" },
  { path: "/console/trust/retention", page: retention, menu: "/console/trust/retention" },
  { path: "/console/trust/audit", page: audit, menu: "/console/trust/audit" },
];

const MENU = [
  { text: "Overview", href: "/console/", icon: "overview" },
  {
    text: "Sources", href: "/console/sources", icon: "sources", under: "/console/sources",
    children: [["All sources", "/console/sources"], ["Imports", "/console/sources/imports"], ["Datasets", "/console/sources/datasets"], ["Quarantine", "/console/sources/quarantine"], ["Contracts", "/console/sources/contracts"], ["Drafts", "/console/sources/drafts"], ["Lineage", "/console/sources/lineage"]],
  },
  { text: "Customers", href: "/console/customers", icon: "customers" },
  { text: "Campaigns", href: "/console/campaigns", icon: "campaigns" },
  {
    text: "Trust", href: "/console/trust/receipts", icon: "trust", under: "/console/trust",
    children: [["Receipts", "/console/trust/receipts"], ["Incidents", "/console/trust/incidents"], ["Changes", "/console/trust/changes"], ["Policies", "/console/trust/policies"], ["Retention", "/console/trust/retention"], ["Audit", "/console/trust/audit"]],
  },
];

const shell = document.getElementById("shell");
const main = h("main", { id: "page" });
const menu = h("nav", { class: "menu", "aria-label": "Menu" });
const foot = h("div", { class: "foot" });
let leaving;

function showMenu(current) {
  const link = (text, href, shape) => h("a", { href, "aria-current": href === current ? "page" : null }, shape && icon(shape), text);
  fill(
    menu,
    MENU.map((item) => {
      const inside = item.under && current?.startsWith(item.under);
      const top = link(item.text, item.href, item.icon);
      if (inside) top.setAttribute("aria-current", "true");
      return [top, inside && h("ul", {}, item.children.map(([text, href]) => h("li", {}, link(text, href))))];
    }),
  );
}

function show(found, query, { first = false } = {}) {
  leaving?.abort();
  leaving = new AbortController();
  showMenu(found?.route.menu);
  const context = { ...found?.parameters, query, signal: leaving.signal, go: (address, options) => router.go(address, options) };
  if (found) fill(main, found.route.page(context));
  else fill(main, heading("Nothing is here"), nothing("This address is no page of the console.", { hint: h("a", { href: "/console/" }, "Go to the overview") }));
  const named = main.querySelector("h1");
  document.title = `${named?.textContent ?? "Counterfoil"} · Counterfoil`;
  window.scrollTo(0, 0);
  if (!first) {
    named?.focus({ preventScroll: true });
    announce(document.title);
  }
}

const DOORS = { SESSION_MISSING: "Sign in to Counterfoil", CREDENTIAL_MISSING: "Sign in to Counterfoil", SIGNED_OUT: "You are signed out" };

function signedOut({ detail: reason }) {
  leaving?.abort();
  document.title = "Sign in · Counterfoil";
  fill(
    shell,
    h(
      "div",
      { class: "door" },
      h(
        "div",
        { role: "main" },
        h("img", { src: "/console/icons/mark.svg", alt: "" }),
        h("h1", { tabindex: "-1" }, DOORS[reason] ?? "Your session has ended"),
        h("p", {}, "The console opens by a link that works once. Make a new one on the machine where Counterfoil runs, and open it:"),
        h("pre", { class: "command" }, "counterfoil console"),
        h("p", { class: "faint" }, "It reads the key of a Counterfoil that was started here; for another one, give it --url and --key."),
      ),
    ),
  );
  shell.querySelector("h1").focus({ preventScroll: true });
}

const router = new Router(ROUTES, show);

async function start() {
  window.addEventListener("counterfoil:signed-out", signedOut, { once: true });
  let workspace = { workspace_id: "" };
  try {
    const { workspaces } = await get("/v1/workspaces");
    [workspace] = workspaces;
    useTimezone(workspace.timezone);
  } catch (error) {
    if (error.status === 401) return;
    if (error.status === 403) workspace.display_name = "Workspace"; // a key without governance.read: its name stays unknown
    else {
    fill(shell, h("div", { class: "door" }, h("div", { role: "main" }, h("h1", {}, "Counterfoil"), problemBox(error, { retry: () => location.reload() }))));
      return;
    }
  }
  const signedIn = h("span", { title: "Who is signed in" });
  fill(
    foot,
    h("strong", {}, workspace.display_name || workspace.workspace_id),
    h("span", { title: "Business days and times are in the workspace's timezone" }, currentTimezone()),
    h("div", { class: "row" }, signedIn, h("button", { type: "button", class: "plain-button", onclick: signOut }, "Sign out")),
  );
  session().then(({ principal }) => fill(signedIn, principal), () => {});
  fill(
    shell,
    h(
      "div",
      { class: "shell" },
      h("div", { class: "side" }, h("a", { class: "brand", href: "/console/" }, h("img", { src: "/console/icons/mark.svg", alt: "" }), "Counterfoil"), menu, foot),
      main,
    ),
  );
  router.start();
}

start();
