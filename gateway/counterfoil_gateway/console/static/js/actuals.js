/** The days before a forecast, read by SQL from the dataset that its model names. */
import { post } from "./api.js";
import { contracts } from "./datasets.js";

const PLAIN = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** The SELECT of one series' days, or null when the series is cut from nested fields. */
export function daysQuery(spec, { series, timezone, from, until, timeType }) {
  const { dataset, time_field: time, value_field: value, aggregation, dimension, lookup, filters } = spec;
  const fields = [time, value, dimension, lookup?.key, ...filters.map((filter) => filter.field)].filter(Boolean);
  if (!fields.every((field) => PLAIN.test(field))) return null;
  const quoted = (table, field) => `${table}."${field}"`;
  const parameters = [];
  let date = quoted("t", time);
  if (timeType === "DATE") date = `CAST(${date} AS DATE)`;
  else {
    date = `CAST(timezone(?, CAST(${date} AS TIMESTAMPTZ)) AS DATE)`;
    parameters.push(timezone);
  }
  const amount = aggregation === "COUNT" ? "count(*)" : `sum(CAST(${quoted("t", value)} AS DOUBLE))`;
  const inner = [`SELECT ${date} AS day, ${amount} AS amount FROM ${dataset} t`];
  if (lookup) inner.push(`LEFT JOIN ${lookup.dataset} l ON CAST(${quoted("l", lookup.key)} AS VARCHAR) = CAST(${quoted("t", lookup.key)} AS VARCHAR)`);
  const conditions = [];
  if (dimension) {
    conditions.push(`coalesce(CAST(${quoted(lookup ? "l" : "t", dimension)} AS VARCHAR), 'unknown') = ?`);
    parameters.push(series);
  }
  for (const filter of filters) {
    conditions.push(`CAST(${quoted("t", filter.field)} AS VARCHAR) = ?`);
    parameters.push(filter.value);
  }
  if (conditions.length) inner.push(`WHERE ${conditions.join(" AND ")}`);
  inner.push("GROUP BY 1");
  const sql = `SELECT strftime(day, '%Y-%m-%d'), amount FROM (${inner.join(" ")}) WHERE day BETWEEN CAST(? AS DATE) AND CAST(? AS DATE) ORDER BY 1`;
  return { sql, parameters: [...parameters, from, until] };
}

/** The series' days from `from` to `until`, both included; a day without records is 0. Null when they cannot be read. */
export async function actualDays(model, forecast, { series, from, until, signal }) {
  const spec = model.forecast?.series;
  if (!spec) return null;
  const columns = (await contracts()).get(spec.dataset)?.columns ?? [];
  const timeType = columns.find((column) => column.name === spec.time_field)?.type;
  const query = daysQuery(spec, { series, timezone: forecast.timezone, from, until, timeType });
  if (!query) return null;
  const { rows } = await post("/v1/sql", { ...query, max_rows: 1000 }, { signal, slow: true });
  const known = new Map(rows.map(([day, amount]) => [day, Number(amount)]));
  const days = [];
  for (let day = from; day <= until; day = shiftDay(day, 1)) days.push([day, known.get(day) ?? 0]);
  return days;
}

/** The calendar day so many days later. */
export function shiftDay(day, days) {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date.toISOString().slice(0, 10);
}
