"""OpenLineage's and Marquez's routes below `/api/v1`: events come in, what Marquez's readers ask for goes out."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl

import orjson
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil_chassis.call import budget
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from counterfoil_gateway import marquez
from counterfoil_gateway.api import Api, Binding, Method
from counterfoil_gateway.asgi import Reply
from counterfoil_gateway.bodies import JSON, MAX_BODY, parse, read_body, refuse_encoding, too_large
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.deadlines import timeout_of
from counterfoil_gateway.problems import C, Problem, bad_request
from counterfoil_gateway.serve import Endpoint, Exchange
from counterfoil_gateway.values import Fault

SERVICE: Final = "/counterfoil.contracts.v1.LineageService/"
MOST_EVENTS: Final = 1000
_FIELDS: Final = [(b"content-type", JSON.encode())]
_DATASET: Final = pb.LineageNode.Kind.DATASET
_JOB: Final = pb.LineageNode.Kind.JOB

M = TypeVar("M", bound=Message)


class Lineage:
    """Calls LineageService for one request."""

    def __init__(self, api: Api, calls: Calls, exchange: Exchange, method: Method) -> None:
        self._api = api
        self._calls = calls
        self._exchange = exchange
        self._timeout = timeout_of(exchange.headers, method)
        self.found = exchange.found
        self.query = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True))

    async def call(self, rpc: str, request: Message, answer: type[M]) -> M:
        """Call a method within what is left of the request's time; raise AioRpcError."""
        call = self._calls.unary(self._api.named(SERVICE + rpc))
        timeout = None if self._timeout is None else budget(self._timeout)
        raw = await call(request.SerializeToString(), timeout=timeout, metadata=self._exchange.metadata)
        return answer.FromString(raw)

    def number(self, name: str, default: int, *, most: int) -> int:
        """Return a query parameter that is a number from 0 to `most`; raise Problem."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise bad_request([Fault(name, "format", "must be a number")])
        return min(int(text), most)

    def time(self, name: str) -> Timestamp | None:
        """Return a query parameter that is a time; raise Problem."""
        text = self.query.get(name, "")
        if not text:
            return None
        at = Timestamp()
        try:
            at.FromJsonString(text)
        except ValueError:
            raise bad_request([Fault(name, "format", "must be a time such as 2026-03-01T12:00:00Z")]) from None
        return at

    def page(self) -> dict[str, Any]:
        """Return which items are asked for."""
        return {
            "page_size": self.number("limit", 100, most=1000) or 1,
            "skip": self.number("offset", 0, most=1_000_000),
        }

    def dataset(self) -> dict[str, Any]:
        """Return the dataset that the path names."""
        return {"namespace": self.found["namespace"], "name": self.found["dataset"]}

    def job(self) -> dict[str, Any]:
        """Return the job that the path names."""
        return {"namespace": self.found["namespace"], "name": self.found["job"]}


Answer = Callable[[Lineage], Awaitable[Any]]


@dataclass(frozen=True)
class Read:
    """A route that reads: the RPC whose scope and policy it stands under, and what makes the answer."""

    path: str
    rpc: str
    summary: str
    answer: Answer
    parameters: Mapping[str, str]


class ReadLineage:
    """The endpoint of a route that reads."""

    def __init__(self, api: Api, calls: Calls, read: Read) -> None:
        self.read = read
        self.binding = _binding("GET", read.path)
        self.method = api.named(SERVICE + read.rpc)
        self._api = api
        self._calls = calls

    async def answer(self, exchange: Exchange) -> Reply:
        """Ask and write the answer."""
        body = await self.read.answer(Lineage(self._api, self._calls, exchange, self.method))
        return Reply(200, orjson.dumps(body), [*_FIELDS])


class EmitLineage:
    """The endpoints that take events: one, or with `batch` a list of them."""

    def __init__(self, api: Api, calls: Calls, *, batch: bool) -> None:
        self.batch = batch
        self.binding = _binding("POST", "/api/v1/lineage/batch" if batch else "/api/v1/lineage")
        self.method = api.named(f"{SERVICE}EmitLineage")
        self._api = api
        self._calls = calls

    async def answer(self, exchange: Exchange) -> Reply:
        """Keep the events; one event that is refused is a problem, a batch says which were."""
        events = await self._events(exchange)
        lineage = Lineage(self._api, self._calls, exchange, self.method)
        request = pb.EmitLineageRequest(events=[pb.LineageEvent(event=orjson.dumps(each)) for each in events])
        results = (await lineage.call("EmitLineage", request, pb.EmitLineageResponse)).results if events else ()
        if self.batch:
            return Reply(200, orjson.dumps(_summary(results)), [*_FIELDS])
        for result in results:
            if result.reason:
                fault = Fault(result.path, result.reason, result.detail)
                text = f"{result.path}: {result.detail}"
                raise Problem(C.INVALID_ARGUMENT, text, result.reason, errors=[fault])
        return Reply(201)

    async def _events(self, exchange: Exchange) -> Sequence[Any]:
        value = parse(await _body(exchange))
        events = value if self.batch else [value]
        if not isinstance(events, list):
            raise bad_request([Fault("", "type", "a batch is a list of events")])
        if len(events) > MOST_EVENTS:
            raise bad_request([Fault("", "max_items", f"must hold at most {MOST_EVENTS} events")])
        return events


def endpoints(api: Api, calls: Calls) -> list[Endpoint]:
    """Return every endpoint below `/api/v1`."""
    written: list[Endpoint] = [EmitLineage(api, calls, batch=False), EmitLineage(api, calls, batch=True)]
    return [*written, *(ReadLineage(api, calls, read) for read in READS)]


async def _body(exchange: Exchange) -> bytes:
    """Return the body, unpacked where it is compressed; raise Problem above 4 MiB of either."""
    body = await read_body(exchange.receive, exchange.headers)
    if exchange.headers.get(b"content-encoding", b"").strip().lower() != b"gzip":
        refuse_encoding(exchange.headers)
        return body
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise Problem(C.INVALID_ARGUMENT, "the body is not gzip", "BAD_ENCODING") from None
    if len(unpacked) > MAX_BODY:
        raise too_large()
    if not unpacker.eof:
        raise Problem(C.INVALID_ARGUMENT, "the body breaks off", "BAD_ENCODING")
    return unpacked


def _summary(results: Sequence[pb.LineageResult]) -> dict[str, Any]:
    failed = [
        {"index": at, "reason": f"{result.reason}: {result.path}: {result.detail}", "retriable": False}
        for at, result in enumerate(results)
        if result.reason
    ]
    status = "success" if not failed else "failed" if len(failed) == len(results) else "partial_success"
    counts = {"received": len(results), "successful": len(results) - len(failed), "failed": len(failed)}
    return {
        "status": status,
        "summary": {**counts, "retriable": 0, "non_retriable": len(failed)},
        "failed_events": failed,
    }


def _binding(verb: str, path: str) -> Binding:
    return Binding(verb, path, "", tuple(path.removeprefix("/").split("/")), "")


async def _nodes(lineage: Lineage, **wanted: Any) -> pb.ListLineageNodesResponse:
    request = pb.ListLineageNodesRequest(**{**lineage.page(), **wanted})
    return await lineage.call("ListLineageNodes", request, pb.ListLineageNodesResponse)


async def _node(lineage: Lineage, kind: pb.LineageNode.Kind.ValueType, name: Mapping[str, str]) -> pb.LineageNode:
    return await lineage.call("GetLineageNode", pb.GetLineageNodeRequest(kind=kind, **name), pb.LineageNode)


async def _get_namespaces(lineage: Lineage) -> Any:
    answer = await lineage.call(
        "ListLineageNamespaces", pb.ListLineageNamespacesRequest(), pb.ListLineageNamespacesResponse
    )
    page = lineage.page()
    shown = answer.namespaces[page["skip"] : page["skip"] + page["page_size"]]
    return {"namespaces": [marquez.namespace(each) for each in shown]}


async def _get_namespace(lineage: Lineage) -> Any:
    answer = await lineage.call(
        "ListLineageNamespaces", pb.ListLineageNamespacesRequest(), pb.ListLineageNamespacesResponse
    )
    for each in answer.namespaces:
        if each.name == lineage.found["namespace"]:
            return marquez.namespace(each)
    raise Problem(C.NOT_FOUND, "no event named this namespace; list them to find it", "LINEAGE_NODE_NOT_FOUND")


async def _get_datasets(lineage: Lineage) -> Any:
    answer = await _nodes(lineage, kind=_DATASET, namespace=lineage.found["namespace"])
    return {"datasets": [marquez.dataset(node) for node in answer.nodes], "totalCount": answer.total_size}


async def _get_dataset(lineage: Lineage) -> Any:
    return marquez.dataset(await _node(lineage, _DATASET, lineage.dataset()))


async def _get_dataset_versions(lineage: Lineage) -> Any:
    request = pb.ListDatasetVersionsRequest(**lineage.dataset(), **lineage.page())
    answer = await lineage.call("ListDatasetVersions", request, pb.ListDatasetVersionsResponse)
    name = pb.DatasetName(**lineage.dataset())
    versions = [marquez.dataset_version(name, version) for version in answer.versions]
    return {"versions": versions, "totalCount": answer.total_size}


async def _get_dataset_version(lineage: Lineage) -> Any:
    request = pb.ListDatasetVersionsRequest(**lineage.dataset(), version=lineage.found["version"], page_size=1)
    answer = await lineage.call("ListDatasetVersions", request, pb.ListDatasetVersionsResponse)
    if not answer.versions:
        raise Problem(C.NOT_FOUND, "the dataset has no such version; list its versions", "LINEAGE_VERSION_NOT_FOUND")
    version = answer.versions[0]
    run = None
    if version.run_id:
        run = await lineage.call("GetLineageRun", pb.GetLineageRunRequest(run_id=version.run_id), pb.LineageRun)
    return marquez.dataset_version(pb.DatasetName(**lineage.dataset()), version, run)


async def _get_jobs(lineage: Lineage) -> Any:
    answer = await _nodes(lineage, kind=_JOB, namespace=lineage.found.get("namespace", ""))
    return {"jobs": [marquez.job(node) for node in answer.nodes], "totalCount": answer.total_size}


async def _get_job(lineage: Lineage) -> Any:
    return marquez.job(await _node(lineage, _JOB, lineage.job()))


async def _get_runs(lineage: Lineage) -> Any:
    request = pb.ListLineageRunsRequest(**lineage.job(), **lineage.page())
    answer = await lineage.call("ListLineageRuns", request, pb.ListLineageRunsResponse)
    return {"runs": [marquez.run_of(run) for run in answer.runs], "totalCount": answer.total_size}


async def _run(lineage: Lineage) -> pb.LineageRun:
    run_id = lineage.found["id"]
    if len(run_id) > 64:
        raise Problem(C.NOT_FOUND, "no event named this run", "LINEAGE_RUN_NOT_FOUND")
    return await lineage.call("GetLineageRun", pb.GetLineageRunRequest(run_id=run_id), pb.LineageRun)


async def _get_run(lineage: Lineage) -> Any:
    return marquez.run_of(await _run(lineage))


async def _get_run_facets(lineage: Lineage) -> Any:
    kind = lineage.query.get("type", "run").lower()
    if kind not in ("run", "job"):
        raise bad_request([Fault("type", "enum", "must be run or job")])
    run = await _run(lineage)
    facets = run.run_facets if kind == "run" else run.job_facets
    return {"runId": run.run_id, "facets": orjson.loads(facets or b"{}")}


async def _get_lineage(lineage: Lineage) -> Any:
    node_id = lineage.query.get("nodeId", "")
    request = pb.GetLineageRequest(node_id=node_id, depth=lineage.number("depth", 20, most=100))
    return marquez.graph(await lineage.call("GetLineage", request, pb.LineageGraph))


async def _get_column_lineage(lineage: Lineage) -> Any:
    """Read a node id from its end: a namespace may hold colons, such as `postgres://host:5432`."""
    kind, _, rest = lineage.query.get("nodeId", "").partition(":")
    field = ""
    if kind == "datasetField":
        rest, _, field = rest.rpartition(":")
    namespace, _, name = rest.rpartition(":")
    if kind not in ("dataset", "datasetField") or not namespace or not name:
        raise bad_request([Fault("nodeId", "format", "must be dataset:<namespace>:<name> or datasetField:...:<field>")])
    downstream = lineage.query.get("withDownstream", "").lower() == "true"
    directions = pb.GetLineageRequest.Direction
    request = pb.GetColumnLineageRequest(
        namespace=namespace,
        dataset=name,
        field=field,
        depth=lineage.number("depth", 20, most=100),
        direction=directions.DIRECTION_UNSPECIFIED if downstream else directions.UPSTREAM,
    )
    return marquez.column_graph(await lineage.call("GetColumnLineage", request, pb.ColumnLineage))


async def _get_events(lineage: Lineage) -> Any:
    request = pb.ListLineageEventsRequest(
        **lineage.page(),
        after=lineage.time("after"),
        before=lineage.time("before"),
        oldest_first=lineage.query.get("sortDirection", "desc").lower() == "asc",
    )
    answer = await lineage.call("ListLineageEvents", request, pb.ListLineageEventsResponse)
    return {"events": [orjson.loads(each.event) for each in answer.events], "totalCount": answer.total_size}


async def _search(lineage: Lineage) -> Any:
    kinds = {"": None, "DATASET": _DATASET, "JOB": _JOB}
    wanted = lineage.query.get("filter", "").upper()
    if wanted not in kinds:
        raise bad_request([Fault("filter", "enum", "must be dataset or job")])
    answer = await _nodes(
        lineage,
        kind=kinds[wanted],
        query=lineage.query.get("q", ""),
        namespace=lineage.query.get("namespace", ""),
        page_size=lineage.number("limit", 10, most=1000) or 1,
    )
    results = [marquez.search_result(node) for node in answer.nodes]
    if lineage.query.get("sort", "").upper() == "UPDATE_AT":
        results.sort(key=lambda each: cast("str", each["updatedAt"]), reverse=True)
    return {"totalCount": answer.total_size, "results": results}


async def _get_tags(lineage: Lineage) -> Any:
    return {"tags": marquez.tags((await _nodes(lineage, page_size=1000)).nodes)}


async def _get_event_stats(lineage: Lineage) -> Any:
    hours = {"DAY": 24, "WEEK": 168}.get(lineage.query.get("period", "DAY").upper())
    if hours is None:
        raise bad_request([Fault("period", "enum", "must be DAY or WEEK")])
    stats = await lineage.call("GetLineageStats", pb.GetLineageStatsRequest(hours=hours), pb.LineageStats)
    return marquez.intervals(stats, daily=hours > 24)


_PAGE: Final = {"limit": "At most this many; 100 by default.", "offset": "Leave out this many first."}
_DEPTH: Final = {"depth": "How many edges far; 20 by default."}
_NODE: Final = {"nodeId": "`dataset:<namespace>:<name>` or `job:<namespace>:<name>`."}
_OF_NAMESPACE: Final = "/api/v1/namespaces/{namespace}"

READS: Final = (
    Read("/api/v1/namespaces", "ListLineageNamespaces", "List the namespaces.", _get_namespaces, _PAGE),
    Read(_OF_NAMESPACE, "ListLineageNamespaces", "Return one namespace.", _get_namespace, {}),
    Read(f"{_OF_NAMESPACE}/datasets", "ListLineageNodes", "List a namespace's datasets.", _get_datasets, _PAGE),
    Read(f"{_OF_NAMESPACE}/datasets/{{dataset}}", "GetLineageNode", "Return one dataset.", _get_dataset, {}),
    Read(
        f"{_OF_NAMESPACE}/datasets/{{dataset}}/versions",
        "ListDatasetVersions",
        "List a dataset's versions, newest first.",
        _get_dataset_versions,
        _PAGE,
    ),
    Read(
        f"{_OF_NAMESPACE}/datasets/{{dataset}}/versions/{{version}}",
        "ListDatasetVersions",
        "Return one version of a dataset with the run that wrote it.",
        _get_dataset_version,
        {},
    ),
    Read("/api/v1/jobs", "ListLineageNodes", "List the jobs.", _get_jobs, _PAGE),
    Read(f"{_OF_NAMESPACE}/jobs", "ListLineageNodes", "List a namespace's jobs.", _get_jobs, _PAGE),
    Read(f"{_OF_NAMESPACE}/jobs/{{job}}", "GetLineageNode", "Return one job with its newest run.", _get_job, {}),
    Read(f"{_OF_NAMESPACE}/jobs/{{job}}/runs", "ListLineageRuns", "List a job's runs, newest first.", _get_runs, _PAGE),
    Read("/api/v1/jobs/runs/{id}", "GetLineageRun", "Return one run.", _get_run, {}),
    Read(
        "/api/v1/jobs/runs/{id}/facets",
        "GetLineageRun",
        "Return the facets of a run or of its job.",
        _get_run_facets,
        {"type": "`run` or `job`."},
    ),
    Read("/api/v1/lineage", "GetLineage", "Walk from a dataset or a job.", _get_lineage, {**_NODE, **_DEPTH}),
    Read(
        "/api/v1/column-lineage",
        "GetColumnLineage",
        "Walk from a dataset or a field along what is computed from what.",
        _get_column_lineage,
        {
            "nodeId": "`dataset:<namespace>:<name>` or `datasetField:<namespace>:<name>:<field>`.",
            **_DEPTH,
            "withDownstream": "`true`: also what is made of it.",
        },
    ),
    Read(
        "/api/v1/events/lineage",
        "ListLineageEvents",
        "List events as they came, by event time.",
        _get_events,
        {
            **_PAGE,
            "after": "Only at or after this time.",
            "before": "Only before this time.",
            "sortDirection": "`asc` or `desc`.",
        },
    ),
    Read(
        "/api/v1/search",
        "ListLineageNodes",
        "Find datasets and jobs by a part of their name.",
        _search,
        {
            "q": "A part of the name.",
            "filter": "`dataset` or `job`.",
            "namespace": "Only of this namespace.",
            "sort": "`NAME` or `UPDATE_AT`.",
            **_PAGE,
        },
    ),
    Read("/api/v1/tags", "ListLineageNodes", "List the tags of datasets, fields and jobs.", _get_tags, {}),
    Read(
        "/api/v1/stats/lineage-events",
        "GetLineageStats",
        "Count run events.",
        _get_event_stats,
        {"period": "`DAY`, by the hour, or `WEEK`, by the day."},
    ),
)
"""What Marquez's pages and clients read."""
