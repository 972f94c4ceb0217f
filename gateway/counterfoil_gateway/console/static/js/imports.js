/** Imports as several pages show them, and how a file is sent. */
import { Problem, segment } from "./api.js";
import { badgeOf } from "./parts.js";

export const importPath = (id) => `/console/sources/imports/${segment(id)}`;

const STATES = {
  PENDING: ["waits", "warn"], RUNNING: ["being read", "accent"], SUCCEEDED: ["done", "good"], FAILED: ["failed", "bad"],
  REVERTING: ["being taken back", "warn"], REVERTED: ["taken back", "plain"],
};
const MOVING = new Set(["PENDING", "RUNNING", "REVERTING"]);

/** Where an import is. */
export const importBadge = (state) => badgeOf(STATES, state);

/** Whether something is done with it still. */
export const moving = (it) => MOVING.has(it.state);

/** Send a file and return its import; raise Problem. `onProgress(share)` as it goes; by XMLHttpRequest, since fetch tells nothing of it. */
export function upload(file, query, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    const ended = (settle, value) => (signal.removeEventListener("abort", stop), settle(value));
    request.open("POST", `/v1/imports?${new URLSearchParams(query)}`);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onload = () => {
      const found = request.response ?? {};
      if (request.status === 401) window.dispatchEvent(new CustomEvent("counterfoil:signed-out", { detail: found.reason }));
      if (request.status >= 200 && request.status < 300) ended(resolve, found);
      else ended(reject, new Problem({ title: request.statusText, ...found, status: request.status }));
    };
    request.onerror = () => ended(reject, new Problem({ title: "The file was not taken", detail: "The connection broke off while it was sent. Send it again: what came in already is not kept twice.", reason: "UNREACHABLE" }));
    request.onabort = () => ended(reject, new DOMException("The upload was left.", "AbortError"));
    signal.addEventListener("abort", stop, { once: true });
    request.send(file);
  });
}
