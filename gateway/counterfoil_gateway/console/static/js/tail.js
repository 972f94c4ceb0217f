/** Records as they come in, by server-sent events; silent while nobody looks. */

/**
 * Follow `/v1/records:tail` until the signal says stop. `onRecord(record)` for each one; `onState("on" | "off" | "paused")`.
 * While the page is hidden the connection is closed; the browser itself comes back after a lost one.
 */
export function follow({ onRecord, onState, signal }) {
  let source;
  let next;
  const open = () => {
    if (document.hidden || signal.aborted) return;
    source = new EventSource(next === undefined ? "/v1/records:tail" : `/v1/records:tail?from_offset=${next}`);
    source.onopen = () => onState("on");
    source.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      next = message.next_offset;
      if (message.record) onRecord(message.record);
    };
    source.onerror = () => onState("off");
  };
  const close = () => {
    source?.close();
    source = undefined;
  };
  const turn = () => {
    close();
    if (document.hidden) onState("paused");
    else {
      next = undefined; // what came in meanwhile is not "arriving now"
      open();
    }
  };
  document.addEventListener("visibilitychange", turn);
  signal.addEventListener("abort", () => {
    close();
    document.removeEventListener("visibilitychange", turn);
  }, { once: true });
  open();
}
