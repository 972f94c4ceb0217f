/** Records as they come in, by server-sent events; silent while nobody looks. */

/**
 * Follow `/v1/records:tail` until the signal says stop: `query` says which records, `onRecord(record)` is called for each one, and
 * `onState("on" | "off" | "paused" | "refused")` as it goes.
 * While the page is hidden the connection is closed; after a lost one the browser itself goes on where it was, by the last event's id.
 */
export function follow({ query, onRecord, onState, signal }) {
  let source;
  const open = () => {
    if (document.hidden || signal.aborted) return;
    source = new EventSource(`/v1/records:tail?${new URLSearchParams(query)}`);
    source.onopen = () => onState("on");
    source.addEventListener("record", ({ data }) => onRecord(JSON.parse(data).record));
    source.onerror = () => onState(source.readyState === EventSource.CLOSED ? "refused" : "off");
  };
  const close = () => {
    source?.close();
    source = undefined;
  };
  const turn = () => {
    close();
    if (document.hidden) onState("paused");
    else open(); // from now on: what came in meanwhile is not "arriving now"
  };
  document.addEventListener("visibilitychange", turn);
  signal.addEventListener("abort", () => {
    close();
    document.removeEventListener("visibilitychange", turn);
  }, { once: true });
  open();
}
