"""The pages: recent traces, and one trace as a waterfall. Plain HTML without scripts; every text is escaped."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from counterfoil_cli.traces.jaeger import BadQueryError, normal_id
from counterfoil_cli.traces.spans import TraceSummary
from counterfoil_cli.traces.store import SpanStore
from counterfoil_cli.traces.waterfall import Bar, Waterfall, lay_out

COLOURS = 8  # of services, in the stylesheet
MAX_LINES = 2000
_PACKAGE = re.compile(r"^/?(?:[a-z0-9_]+\.)+(?=[A-Z])")
TICKS = 5
STYLE = resources.files("counterfoil_cli.traces").joinpath("style.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Pages:
    """Renders from the store."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """Return the paths of the pages."""
        return [
            Route("/", self.recent),
            Route("/trace/{trace_id}", self.trace),
            Route("/search", self.search),
        ]

    async def recent(self, request: Request) -> Response:
        """Show the newest traces, of one service when `service` says so."""
        service = request.query_params.get("service", "")
        services = await run_in_threadpool(self._store.services)
        traces = await run_in_threadpool(lambda: self._store.recent(service=service))
        return _page("Traces", recent_html(traces, services=services, chosen=service))

    async def search(self, request: Request) -> Response:
        """Go to the trace whose id was typed."""
        text = request.query_params.get("id", "").strip()
        return RedirectResponse(f"/trace/{quote(text, safe='')}" if text else "/", status_code=303)

    async def trace(self, request: Request) -> Response:
        """Show one trace."""
        try:
            trace_id = normal_id(request.path_params["trace_id"])
        except BadQueryError as error:
            return _page("No trace", _message("No trace", str(error)), status=400)
        trace = await run_in_threadpool(self._store.trace, trace_id)
        if trace is None:
            hint = "It was never sent, is not yet sent (spans come within seconds), or is older than is kept."
            return _page("No trace", _message(f"No trace {trace_id}", hint), status=404)
        fall = await run_in_threadpool(lay_out, trace)
        services = await run_in_threadpool(self._store.services)
        return _page(
            f"{fall.bars[0].span['operationName']} · trace",
            waterfall_html(fall, services=services, warnings=trace.warnings),
        )


def recent_html(traces: Sequence[TraceSummary], *, services: Sequence[str], chosen: str) -> str:
    """Return the list of traces, longest bar = longest trace of the list."""
    longest = max((trace.duration_us for trace in traces), default=1) or 1
    options = "".join(f"<option{' selected' if name == chosen else ''}>{escape(name)}</option>" for name in services)
    colours = _colours(services)
    lines = "".join(_summary_html(trace, longest=longest, colours=colours) for trace in traces)
    empty = '<p class="empty">No spans yet. Send a request to the gateway and reload.</p>'
    return f"""<header><h1>Traces</h1><p class="facts">the newest {len(traces)}</p></header>
<div class="tools"><form action="/"><select name="service" aria-label="Service"><option value="">all services</option>\
{options}</select><button>Show</button></form>
<form action="/search"><input name="id" placeholder="trace id" size="34" aria-label="Trace id">\
<button>Open</button></form></div>
{f'<table class="traces"><tbody>{lines}</tbody></table>' if traces else empty}"""


def waterfall_html(fall: Waterfall, *, services: Sequence[str], warnings: Sequence[str]) -> str:
    """Return one trace: facts, legend, time axis, and a line per span that opens its attributes."""
    root = fall.bars[0]
    colours = _colours([*services, *fall.services])
    shown = fall.bars[:MAX_LINES]
    notes = list(warnings)
    if len(fall.bars) > MAX_LINES:
        notes.append(f"Only the first {MAX_LINES} of {len(fall.bars)} spans are drawn; the JSON has more.")
    facts = [
        f"<b>{format_us(fall.duration_us)}</b>",
        f"<b>{len(fall.bars)}</b> span{'s' if len(fall.bars) != 1 else ''}",
        f"<b>{len(fall.services)}</b> service{'s' if len(fall.services) != 1 else ''}",
        _errors_html(fall.errors),
        escape(_moment(fall.start_us)),
    ]
    legend = "".join(f'<span class="chip {colours[name]}">{escape(name)}</span>' for name in fall.services)
    return f"""<nav><a href="/">← Traces</a><span><a href="/api/traces/{fall.trace_id}">JSON</a></span></nav>
<header><h1><span class="service">{escape(root.service)}</span> {escape(_short(root.span["operationName"]))}</h1>
<p class="facts">{" <i>·</i> ".join(facts)}</p><p class="id">{fall.trace_id}</p><p class="legend">{legend}</p></header>
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
<div class="fall"><div class="line axis"><span class="name">Span</span>\
<span class="track">{_ticks(fall.duration_us)}</span><span class="took">Time</span></div>
{"".join(_line_html(bar, colours[bar.service], start_us=fall.start_us) for bar in shown)}</div>"""


def format_us(micros: int) -> str:
    """Write a duration with three digits or so: 950 µs, 12.3 ms, 1.23 s, 2 min 5 s."""
    if micros < 1000:
        return f"{micros} µs"
    if micros < 1_000_000:
        return f"{micros / 1000:.3g} ms" if micros < 999_500 else "1 s"
    if micros < 60_000_000:
        return f"{micros / 1_000_000:.3g} s"
    minutes, rest = divmod(round(micros / 1_000_000), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _line_html(bar: Bar, colour: str, *, start_us: int) -> str:
    span = bar.span
    left, width = min(bar.left, 99.7), max(0.3, min(bar.width, 100 - bar.left))
    kind = next((str(tag["value"]) for tag in span["tags"] if tag["key"] == "span.kind"), "")
    steps = '<i class="step"></i>' * min(bar.depth, 24)
    mark = '<b class="bad" title="error">!</b>' if bar.error else ""
    return f"""<details id="{span["spanID"]}"><summary class="line{" failed" if bar.error else ""}">\
<span class="name">{steps}<i class="dot {colour}"></i><span class="service">{escape(bar.service)}</span> {mark}\
<span class="op" title="{escape(span["operationName"])}">{escape(_short(span["operationName"]))}</span></span>\
<span class="track"><svg aria-hidden="true"><rect class="{colour}" x="{left:.3f}%" width="{width:.3f}%" y="5" \
height="12" rx="2"/></svg></span><span class="took">{format_us(span["duration"])}</span></summary>
<div class="more"><p class="facts">span {span["spanID"]}{f" <i>·</i> {escape(kind)}" if kind else ""} <i>·</i> \
starts at {format_us(span["startTime"] - start_us)}</p>\
{_tags_html("Attributes", span["tags"])}{_logs_html(span["logs"], start_us=start_us)}{_links_html(span)}\
{_tags_html("Process", bar.process_tags)}</div></details>
"""


def _ticks(duration_us: int) -> str:
    steps = range(TICKS)
    marks = (f'<span class="tick">{format_us(round(duration_us * step / TICKS))}</span>' for step in steps)
    return "".join(marks)


def _tags_html(title: str, tags: Sequence[dict[str, Any]]) -> str:
    if not tags:
        return ""
    lines = "".join(f"<tr><th>{escape(tag['key'])}</th><td>{escape(_text(tag['value']))}</td></tr>" for tag in tags)
    return f"<h2>{title}</h2><table><tbody>{lines}</tbody></table>"


def _logs_html(logs: Sequence[dict[str, Any]], *, start_us: int) -> str:
    return "".join(
        _tags_html(f"Event at {format_us(max(0, log['timestamp'] - start_us))}", log["fields"]) for log in logs
    )


def _links_html(span: dict[str, Any]) -> str:
    links = [ref for ref in span["references"] if ref["refType"] == "FOLLOWS_FROM"]
    if not links:
        return ""
    lines = "".join(
        f'<tr><th>follows from</th><td><a href="/trace/{quote(ref["traceID"])}#{quote(ref["spanID"])}">'
        f"{escape(ref['traceID'])}</a></td></tr>"
        for ref in links
    )
    return f"<h2>Links</h2><table><tbody>{lines}</tbody></table>"


def _summary_html(trace: TraceSummary, *, longest: int, colours: Mapping[str, str]) -> str:
    width = max(0.5, 100 * trace.duration_us / longest)
    chips = "".join(f'<span class="chip {colours.get(name, "c0")}">{escape(name)}</span>' for name in trace.services)
    return f"""<tr><td><a href="/trace/{trace.trace_id}"><span class="service">{escape(trace.root_service)}</span> \
{escape(_short(trace.name))}</a>{f" {_errors_html(trace.errors)}" if trace.errors else ""}<br>{chips}</td>
<td class="number">{trace.spans} span{"s" if trace.spans != 1 else ""}</td>
<td class="length"><svg aria-hidden="true"><rect class="c0" width="{width:.2f}%" y="4" height="8" rx="2"/></svg></td>
<td class="number">{format_us(trace.duration_us)}</td><td class="number">{escape(_moment(trace.start_us))}</td></tr>
"""


def _errors_html(count: int) -> str:
    return f'<b class="bad">{count} error{"s" if count != 1 else ""}</b>' if count else "no error"


def _message(title: str, text: str) -> str:
    return (
        f'<nav><a href="/">← Traces</a></nav><header><h1>{escape(title)}</h1></header>'
        f'<p class="empty">{escape(text)}</p>'
    )


def _moment(micros: int) -> str:
    try:
        return datetime.fromtimestamp(micros / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    except (OverflowError, ValueError, OSError):  # a clock that is far off
        return f"{micros} µs"


def _colours(services: Sequence[str]) -> dict[str, str]:
    """Return each service's colour class, the same on every page while the set of services is."""
    return {service: f"c{index % COLOURS}" for index, service in enumerate(dict.fromkeys(services))}


def _short(operation: str) -> str:
    """Leave away the package of a gRPC method: the service's name stands beside it."""
    return _PACKAGE.sub("", operation)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>",
        status_code=status,
        headers=HEADERS,
    )
