// node send.mjs CLIENT URL WRITE_KEY, orders as JSON on standard input: sends them by one of the SDKs for Node, unmodified.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const load = createRequire(process.env.CLIENTS + "/package.json");
const [client, url, key] = process.argv.slice(2);
const orders = JSON.parse(readFileSync(0, "utf8"));

async function segment() {
  const { Analytics } = load("@segment/analytics-node");
  const analytics = new Analytics({ writeKey: key, host: url, flushAt: 10, maxRetries: 10 });
  for (const [userId, properties] of orders) analytics.track({ userId, event: "Order Completed", properties });
  await analytics.closeAndFlush({ timeout: 60_000 });
}

async function rudder() {
  const Analytics = load("@rudderstack/rudder-sdk-node");
  const analytics = new (Analytics.default ?? Analytics)(key, { dataPlaneUrl: url, flushAt: 10, retryCount: 10 });
  const told = orders.map(
    ([userId, properties]) =>
      new Promise((resolve, reject) => {
        analytics.track({ userId, event: "Order Completed", properties }, (error) => (error ? reject(error) : resolve()));
      }),
  );
  await new Promise((resolve) => analytics.flush(resolve));
  await Promise.all(told);
}

// It sends again what failed when the next event is tracked, and not before: so the orders go one after the other.
async function snowplow() {
  const { newTracker, buildSelfDescribingEvent } = load("@snowplow/node-tracker");
  let answered;
  const emitter = {
    endpoint: url,
    eventMethod: "post",
    bufferSize: 1,
    onRequestSuccess: () => answered(),
    onRequestFailure: () => answered(),
  };
  const tracker = newTracker({ namespace: "shop", appId: key, encodeBase64: false }, emitter);
  for (const [userId, data] of orders) {
    const next = new Promise((resolve) => (answered = resolve));
    tracker.setUserId(userId);
    tracker.track(buildSelfDescribingEvent({ event: { schema: "iglu:com.shop/order_completed/jsonschema/1-0-0", data } }));
    await next;
  }
}

await { segment, rudder, snowplow }[client]();
