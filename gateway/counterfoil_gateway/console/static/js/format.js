/** Values as people read them. Everything goes through Intl; times are shown in the workspace's timezone. */
const LOCALE = "en-GB";
const NUMBERS = "en-US";
const MICROS = 1_000_000;
let timezone = "UTC";

/** Show times in this IANA timezone from now on. */
export function useTimezone(name) {
  try {
    new Intl.DateTimeFormat(LOCALE, { timeZone: name });
    timezone = name;
  } catch {
    timezone = "UTC"; // a browser that is older than the zone's name
  }
}

export const currentTimezone = () => timezone;

/** A count, every digit of it. */
export const count = (value) => new Intl.NumberFormat(NUMBERS, { maximumFractionDigits: 0 }).format(value);

/** A number with at most this many decimals. */
export const decimal = (value, digits = 2) =>
  new Intl.NumberFormat(NUMBERS, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);

/** A number with as many decimals as its size can bear. */
export function number(value) {
  const size = Math.abs(value);
  return decimal(value, size >= 1000 ? 0 : size >= 100 ? 1 : 2);
}

/** A number with at most two decimals, none that say nothing: `5`, `22.5`. */
export const brief = (value) => new Intl.NumberFormat(NUMBERS, { maximumFractionDigits: 2 }).format(value);

/** Plural with its count: `1 record`, `2 records`. */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

const SIZES = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];

/** A number of bytes: `1.25 MB`. */
export function size(bytes) {
  const [unit, length] = SIZES.find(([, most]) => bytes >= most) ?? ["bytes", 1];
  return `${brief(bytes / length)} ${unit}`;
}

/** An amount of money, or a plain number when it has no currency. */
export function money(value, currency, digits) {
  if (!currency) return number(value);
  const fraction = digits ?? (Math.abs(value) >= 10_000 ? 0 : 2);
  try {
    return new Intl.NumberFormat(NUMBERS, {
      style: "currency", currency, minimumFractionDigits: fraction, maximumFractionDigits: fraction,
    }).format(value);
  } catch {
    return `${number(value)} ${currency}`;
  }
}

/** The sign of a currency: `€`. */
export const currencySign = (currency) =>
  new Intl.NumberFormat(NUMBERS, { style: "currency", currency }).formatToParts(0).find((part) => part.type === "currency").value;

/** An amount in millionths. */
export const micros = (value, currency, digits) => money(value / MICROS, currency, digits);

/** A share of a whole as a percentage, small ones told apart from none. */
export const shareOf = (share) => (share > 0 && share < 0.0001 ? "less than 0.01%" : percent(share, share < 0.1 ? 2 : 0));

/** A share as a percentage. */
export const percent = (share, digits = 0) =>
  new Intl.NumberFormat(NUMBERS, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).format(share);

/** A moment: `26 Nov 2026, 10:43`. */
export const moment = (iso) =>
  iso
    ? new Intl.DateTimeFormat(LOCALE, {
        timeZone: timezone, day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
      }).format(new Date(iso))
    : "";

/** A moment to the second, with its zone. */
export const exact = (iso) =>
  iso ? new Intl.DateTimeFormat(LOCALE, { timeZone: timezone, dateStyle: "medium", timeStyle: "long" }).format(new Date(iso)) : "";

/** The time of day: `10:43`. */
export const clock = (iso) =>
  new Intl.DateTimeFormat(LOCALE, { timeZone: timezone, hour: "2-digit", minute: "2-digit" }).format(new Date(iso));

/** The day of a moment: `26 Nov 2026`. */
export const dayOf = (iso) =>
  new Intl.DateTimeFormat(LOCALE, { timeZone: timezone, day: "numeric", month: "short", year: "numeric" }).format(new Date(iso));

/** A calendar day `2026-11-26` as `26 Nov 2026`, wherever it is. */
export const day = (text) =>
  new Intl.DateTimeFormat(LOCALE, { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" }).format(new Date(`${text}T00:00:00Z`));

/** The moment at which a calendar day `2026-11-26`, or a time of it `2026-11-26T10:30`, begins in the timezone shown. */
export function dayBegins(text) {
  const wall = new Date(`${text.length > 10 ? text : `${text}T00:00`}Z`).getTime();
  const shift = (at) => {
    const part = Object.fromEntries(new Intl.DateTimeFormat("en", { timeZone: timezone, year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric", hourCycle: "h23" }).formatToParts(at).map(({ type, value }) => [type, Number(value)]));
    return Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second) - at;
  };
  return new Date(wall - shift(wall - shift(wall))).toISOString(); // asked twice: the clocks may be put on in between
}

const UNITS = [["year", 31_557_600], ["month", 2_629_800], ["week", 604_800], ["day", 86_400], ["hour", 3_600], ["minute", 60]];

/** How long ago, in words. */
export function ago(iso, now = Date.now()) {
  const seconds = (now - new Date(iso).getTime()) / 1000;
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return words.format(-Math.round(seconds / length), unit);
  }
  return seconds < 10 ? "just now" : words.format(-Math.round(seconds), "second");
}

/** `PENDING_APPROVAL` or `demand_planning` as `pending approval`, `demand planning`. */
export const words = (code) => String(code ?? "").replaceAll("_", " ").toLowerCase();

/** The same with a capital at its beginning. */
export function title(code) {
  const text = words(code);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The end of an id that tells it apart; UUIDv7 begin alike. */
export const shortId = (id) => (id.length > 18 ? `${id.split(/[.-]/)[0].slice(0, 8)}…${id.slice(-6)}` : id);
