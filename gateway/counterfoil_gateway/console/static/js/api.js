/** The public API, called with the session's cookie. What goes wrong is a Problem, as RFC 9457 says it. */
const SLOW_SECONDS = "60";

/** An answer that is not a success: the API's problem JSON, or what the browser could tell. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", reason = "", trace_id = "", metadata = {}, errors = [] }) {
    super(detail || title);
    Object.assign(this, { status, title, detail, reason, traceId: trace_id, metadata, errors });
  }
}

async function ask(verb, path, { query, body, signal, slow = false, accept = "application/json" } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  const headers = { Accept: accept };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (slow) headers["Request-Timeout"] = SLOW_SECONDS;
  let answer;
  try {
    answer = await fetch(url, { method: verb, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "Counterfoil cannot be reached", detail: "The gateway does not answer. Is `counterfoil up` still running?", reason: "UNREACHABLE" });
  }
  if (answer.ok) return answer;
  const found = parsed(await answer.text());
  if (answer.status === 401) window.dispatchEvent(new CustomEvent("counterfoil:signed-out", { detail: found.reason }));
  throw new Problem({ title: answer.statusText, ...found, status: answer.status });
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return { detail: text.slice(0, 300) };
  }
}

/** Ask and return the JSON; raise Problem. */
export const call = async (verb, path, options) => parsed(await (await ask(verb, path, options)).text());

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const post = (path, body = {}, options = {}) => call("POST", path, { body, ...options });

/** Save what an address answers to a body as a file of this name; raise Problem. */
export async function download(path, body, { accept, name }) {
  const answer = await ask("POST", path, { body, accept, slow: true });
  const url = URL.createObjectURL(await answer.blob());
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

/** Everything of a list, page after page, up to a limit. */
export async function all(path, key, { query = {}, limit = 1000, signal } = {}) {
  const found = [];
  let token = "";
  do {
    const page = await get(path, { page_size: Math.min(limit, 1000), ...query, page_token: token }, signal);
    found.push(...page[key]);
    token = page.next_page_token;
  } while (token && found.length < limit);
  return found;
}

/** Ask once, however many places show the answer; after a failure, ask anew. */
export function once(ask) {
  let answer;
  return () => {
    answer ??= ask().catch((error) => {
      answer = undefined;
      throw error;
    });
    return answer;
  };
}

/** One path segment, whatever its characters. */
export const segment = (id) => encodeURIComponent(id);
