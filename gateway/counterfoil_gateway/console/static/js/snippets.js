/** What to put into an app so that its events come here: each client as it is installed, with the write key in place. */
import { fill, h } from "./dom.js";
import { copied } from "./forms.js";
import { choice } from "./parts.js";

const EVENT = { segment: "Order Completed", properties: '{ order_id: "o-1", revenue: 12.5, currency: "EUR" }' };
const text = (value) => JSON.stringify(value); // the literals of JavaScript and Python alike

/** By protocol: the clients, each with its name, where it goes, and its lines for a door and a key. */
const CLIENTS = {
  segment: [
    ["Segment, browser", (door, key) => `// npm install @segment/analytics-next
import { AnalyticsBrowser } from "@segment/analytics-next";

const analytics = AnalyticsBrowser.load({ writeKey: ${text(key)}, cdnURL: ${text(door)} });
analytics.identify("user-1");
analytics.track("${EVENT.segment}", ${EVENT.properties});`],
    ["Segment, Node", (door, key) => `// npm install @segment/analytics-node
import { Analytics } from "@segment/analytics-node";

const analytics = new Analytics({ writeKey: ${text(key)}, host: ${text(door)} });
analytics.track({ userId: "user-1", event: "${EVENT.segment}", properties: ${EVENT.properties} });
await analytics.closeAndFlush();`],
    ["Segment, Python", (door, key) => `# pip install segment-analytics-python
import segment.analytics as analytics

analytics.write_key = ${text(key)}
analytics.host = ${text(door)}
analytics.track("user-1", "${EVENT.segment}", {"order_id": "o-1", "revenue": 12.5, "currency": "EUR"})
analytics.flush()`],
    ["RudderStack, browser", (door, key) => `// npm install @rudderstack/analytics-js
import { RudderAnalytics } from "@rudderstack/analytics-js";

const analytics = new RudderAnalytics();
analytics.load(${text(key)}, ${text(door)}, { configUrl: ${text(door)} });
analytics.identify("user-1");
analytics.track("${EVENT.segment}", ${EVENT.properties});`],
    ["RudderStack, Python", (door, key) => `# pip install rudder-sdk-python
import rudderstack.analytics as analytics

analytics.write_key = ${text(key)}
analytics.dataPlaneUrl = ${text(door)}
analytics.track("user-1", "${EVENT.segment}", {"order_id": "o-1", "revenue": 12.5, "currency": "EUR"})
analytics.flush()`],
    ["curl", (door, key) => `curl ${door}/v1/track -u '${key}:' -H 'Content-Type: application/json' \\
  -d '{"userId": "user-1", "event": "${EVENT.segment}", "messageId": "try-1", "properties": {"order_id": "o-1", "revenue": 12.5, "currency": "EUR"}}'`],
  ],
  snowplow: [
    ["Snowplow, browser", (door, key) => `// npm install @snowplow/browser-tracker
import { newTracker, setUserId, trackPageView } from "@snowplow/browser-tracker";

newTracker("shop", ${text(door)}, { appId: ${text(key)} });
setUserId("user-1");
trackPageView();`],
    ["Snowplow, Python", (door, key) => `# pip install snowplow-tracker
from snowplow_tracker import Emitter, PageView, Tracker

emitter = Emitter(${text(new URL(door).host)}, protocol=${text(new URL(door).protocol.slice(0, -1))})
tracker = Tracker("shop", emitter, app_id=${text(key)})
tracker.track(PageView("https://shop.example/"))
tracker.flush()`],
    ["curl", (door, key) => `curl '${door}/i?e=pv&p=web&tv=curl&url=https%3A%2F%2Fshop.example%2F&eid=00000000-0000-4000-8000-000000000001&aid=${key}'`],
  ],
};

const PLACEHOLDER = "WRITE_KEY";

/** The clients of a protocol, one shown at a time; without a key its place says so. */
export function snippets(protocol, key) {
  const clients = CLIENTS[protocol];
  if (!clients) return h("p", {}, "Its protocol is an extension: see what it says of its clients.");
  const place = h("div");
  const show = (index) => fill(place, copied(clients[index][1](location.origin, key || PLACEHOLDER), `Lines for ${clients[index][0]}`));
  show(0);
  return h("div", { class: "stack" }, choice("Client", clients.map(([name], index) => [index, name]), 0, show), place);
}
