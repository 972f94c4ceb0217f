/** Who is signed in. */
import { call, get } from "./api.js";

const SIGNED_OUT = "SIGNED_OUT";
let known;

/** `{workspace, principal, scopes, expires_at}`; asked for once. */
export const session = () => (known ??= get("/console/session"));

/** End the session and show how to begin another. */
export async function signOut() {
  await call("POST", "/console/sign-out");
  window.dispatchEvent(new CustomEvent("counterfoil:signed-out", { detail: SIGNED_OUT }));
}
