/** Sources as several pages show them. */
import { segment } from "./api.js";

export const sourcePath = (id) => `/console/sources/${segment(id)}`;

/** What people call the protocols that come with the platform. */
export const PROTOCOLS = [["segment", "Segment, RudderStack or Customer.io"], ["snowplow", "Snowplow"]];

export const protocolName = (protocol) => PROTOCOLS.find(([name]) => name === protocol)?.[1] ?? protocol;

const keys = new Map();

/** Write keys that were made on this visit: the API tells each once, so they live as long as the page. */
export const writeKeys = { of: (id) => keys.get(id), keep: (id, key) => keys.set(id, key) };
