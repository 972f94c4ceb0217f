/** Changes: what one person asks for and another has to approve. */
import { get, post, segment } from "../api.js";
import { comparisonPath, contractPath } from "../contracts.js";
import { announce, fill, h, icon } from "../dom.js";
import { title, words } from "../format.js";
import { session } from "../session.js";
import { at, badge, card, choice, facts, hash, heading, json, nothing, paged, pending, problemBox, stateBadge } from "../parts.js";

const KINDS = { "contract.activate": "Put a contract version in force", "model.promote": "Let a model version serve", "persons.export": "Export persons", "policy_bundle.activate": "Put policies in force" };
const SHOWN = [["PENDING", "Waiting"], ["", "All"]];

export function changes({ query, signal, go }) {
  const state = query.get("state") ?? "PENDING";
  return h(
    "div",
    { class: "stack" },
    heading("Changes", {
      intro: "What policy lets nobody do alone. The vote is for exactly the payload you see; whoever asked cannot approve.",
      actions: choice("Which changes", SHOWN, state === "PENDING" ? state : "", (chosen) => go(`/console/trust/changes${chosen ? "" : "?state="}`)),
    }),
    paged((token) => get("/v1/changes", { page_size: 20, page_token: token, state }, signal), "changes", (found) => h("div", { class: "stack" }, found.map((one) => changeCard(one))), {
      height: 260,
      empty: card(null, nothing(state ? "Nothing waits for approval." : "No change was asked for yet.", { hint: state ? h("a", { href: "/console/trust/changes?state=" }, "Show all changes") : "Promoting a model of medium or high impact and exporting persons ask for one." })),
    }),
  );
}

export function change({ change_id: id, signal }) {
  return h(
    "div",
    { class: "stack" },
    heading("Change", { crumb: ["Changes", "/console/trust/changes"] }),
    pending(() => get(`/v1/changes/${segment(id)}`, {}, signal), (found) => changeCard(found), {
      height: 260,
      gone: () => nothing("There is no such change.", { hint: h("a", { href: "/console/trust/changes" }, "Show the changes") }),
    }),
  );
}

export function changeCard(first) {
  const place = h("div");
  const draw = (it) =>
    fill(
      place,
      card(
        h("span", {}, KINDS[it.kind] ?? title(it.kind.replace(".", " ")), " ", h("code", { class: "faint" }, it.resource)),
        h(
          "div",
          {},
          h("div", { class: "change-body" }, h("div", { class: "stack" }, about(it), votes(it)), h("div", {}, h("p", { class: "subhead" }, "Payload ", h("span", { class: "faint" }, "SHA-256 "), hash(it.payload_sha256, 24)), json(it.payload))),
          it.state === "PENDING" && voteForm(it, draw),
        ),
        { aside: stateBadge(it.state), id: `change-${it.change_id}` },
      ),
    );
  draw(first);
  return place;
}

const about = (it) =>
  facts([
    ["Asked by", h("span", { class: "strong" }, it.requester)],
    ["Why", it.reason],
    ["Policy", h("a", { href: `/console/trust/policies#policy-${encodeURIComponent(it.policy_id)}` }, h("code", {}, it.policy_id))],
    ["Asked", at(it.created_at)],
    it.state === "PENDING" || it.state === "APPROVED" ? ["Holds until", at(it.expires_at)] : null,
    it.applied_at ? ["Carried out", at(it.applied_at)] : null,
    ["What came of it", it.detail],
    contractOf(it),
    ["Kind", h("code", {}, it.kind)],
    ["Change", h("code", {}, it.change_id)],
  ]);

/** Of a change that puts a contract version in force: where to see what that does. */
function contractOf({ kind, resource }) {
  const [, id, version] = kind === "contract.activate" ? /^contracts\/(.+)\/versions\/(.+)$/.exec(resource) ?? [] : [];
  return id && ["Contract", [h("a", { href: contractPath(id, version) }, `${id} ${version}`), ", ", h("a", { href: comparisonPath(id, "", version) }, "beside the version in force")]];
}

function votes(it) {
  if (!it.votes.length) return h("p", { class: "faint" }, `No vote yet; it needs ${it.quorum}.`);
  return h(
    "div",
    { class: "votes" },
    it.votes.map((vote) => h("p", {}, badge(vote.verdict === "APPROVE" ? "approved" : "rejected", vote.verdict === "APPROVE" ? "good" : "bad"), " by ", h("span", { class: "strong" }, vote.voter), ", ", at(vote.voted_at), vote.reason && `: ${vote.reason}`, !vote.counts && [" ", badge("does not count", "bad", "The payload or the vote is no longer what was voted on")])),
  );
}

function voteForm(it, draw) {
  const reason = h("input", { name: "reason", maxlength: "1000", placeholder: "needed to reject", autocomplete: "off" });
  const trouble = h("div", { role: "status" });
  const approve = h("button", { type: "button", class: "button primary", onclick: () => vote("approve", { payload_sha256: it.payload_sha256, reason: reason.value }) }, icon("check"), "Approve this payload");
  const reject = h("button", { type: "button", class: "button danger", onclick: () => (reason.value.trim() ? vote("reject", { reason: reason.value }) : reason.focus()) }, icon("cross"), "Reject");
  async function vote(verb, body) {
    approve.disabled = reject.disabled = true;
    try {
      const after = await post(`/v1/changes/${segment(it.change_id)}:${verb}`, body);
      announce(`The change is ${words(after.state)}`);
      draw(after);
    } catch (error) {
      fill(trouble, problemBox(error));
      approve.disabled = reject.disabled = false;
    }
  }
  const note = h("p", { class: "faint" });
  session().then(
    ({ principal, scopes }) => {
      if (principal === it.requester) {
        note.textContent = `You (${principal}) asked for it, so somebody else has to approve.`;
        approve.disabled = true;
      } else if (!scopes.includes("governance.approve")) note.textContent = "Your key has not the scope governance.approve.";
    },
    () => {},
  );
  return h("div", { class: "vote-form" }, h("div", { class: "form" }, h("label", { class: "grow" }, "Reason", reason), approve, reject), note, trouble);
}
