"""HubSpot: contacts and deals by the CRM's search, oldest change first, through dlt's REST source.

A changed object is a record of its own, named by its id and when it changed. Archived objects are not found by the
search: they are listed each time, which HubSpot does for the 90 days that it keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from dlt.extract.exceptions import PipeException
from dlt.sources.helpers.requests import Client
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from dlt.sources.rest_api import rest_api_resources
from requests import HTTPError, Request, RequestException, Response

from counterfoil_connectors import settings
from counterfoil_connectors.connector import Connector, Parameter, Record, SourceError, Stream, name_of

WINDOW = 10_000
"""The most results that one search pages through; a further one goes on from the last change seen."""
_AGAIN = timedelta(minutes=5)  # the search finds a change some time after it was made
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEXT = "paging.next.after"
_CONTACT = (
    "email,firstname,lastname,phone,lifecyclestage,hs_lead_status,hs_analytics_source,createdate,hubspot_owner_id"
)
_DEAL = "dealname,amount,dealstage,pipeline,closedate,createdate,hs_is_closed_won,hubspot_owner_id"


class _Search(JSONResponseCursorPaginator):
    """Pages of a search by its `after`, and beyond the window by another search."""

    def __init__(self, changed: str) -> None:
        super().__init__(_NEXT, cursor_body_path="after")
        self._changed = changed
        self._since = ""

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        super().update_state(response, data)
        full = self._next_reference is not None and int(self._next_reference) >= WINDOW
        self._since = str(_millis(data[-1]["properties"][self._changed])) if full and data else ""

    def update_request(self, request: Request) -> None:
        if not self._since:
            super().update_request(request)
            return
        body: Any = request.json
        wanted = body["filterGroups"][0]["filters"][0]
        if wanted["value"] == self._since:
            raise SourceError(f"More than {WINDOW} objects changed at once; HubSpot's search cannot page through them.")
        wanted["value"] = self._since
        del body["after"]


def _streams(given: Mapping[str, str]) -> Sequence[Stream]:
    url = urlsplit(given["api_url"])
    if url.scheme != "https" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SourceError("`api_url` must begin with https://: the token would travel unprotected.")
    kinds = {"contacts": "lastmodifieddate", "deals": "hs_lastmodifieddate"}
    return [Stream(f"hubspot_{kind}", partial(_read, given, kind, changed)) for kind, changed in kinds.items()]


def _read(given: Mapping[str, str], kind: str, changed: str, cursor: str | None) -> Iterator[Record]:
    properties = [*given[f"{kind}_properties"].split(","), changed]
    since = str(_millis(cursor, earlier=_AGAIN)) if cursor else "0"
    search = {
        "filterGroups": [{"filters": [{"propertyName": changed, "operator": "GTE", "value": since}]}],
        "sorts": [{"propertyName": changed, "direction": "ASCENDING"}],
        "properties": properties,
        "limit": 200,
    }
    path = f"crm/v3/objects/{kind}"
    found = {"path": f"{path}/search", "method": "POST", "json": search, "paginator": _Search(changed)}
    asked = {"archived": "true", "limit": 100, "properties": ",".join(properties)}
    archived = {"path": path, "params": asked, "paginator": JSONResponseCursorPaginator(_NEXT, cursor_param="after")}
    try:
        for each in _objects(given, found):
            at = each["properties"][changed]
            cursor = max(cursor or at, at, key=_millis)
            yield Record(each, name_of(each["id"], at), cursor)
        for each in _objects(given, archived):
            yield Record(each, name_of(each["id"], each["updatedAt"], "archived"))
    except (LookupError, TypeError, ValueError) as error:
        raise SourceError(f"HubSpot's answer about {kind} is not as documented: {error!r}.") from error


def _objects(given: Mapping[str, str], endpoint: Mapping[str, Any]) -> Iterator[Any]:
    settings.silence_dlt()
    session = Client(raise_for_status=False, request_max_attempts=8).session  # it waits as Retry-After says
    config: Any = {
        "client": {"base_url": given["api_url"], "auth": BearerTokenAuth(given["token"]), "session": session},
        "resources": [{"name": "objects", "endpoint": {**endpoint, "data_selector": "results"}}],
    }
    try:
        yield from rest_api_resources(config)[0]
    except (PipeException, RequestException) as error:
        why = error.__cause__ or error
        if isinstance(why, HTTPError):
            why.response.close()
        raise SourceError(f"HubSpot does not answer as it should: {why}") from error
    finally:
        session.close()


def _millis(text: str, *, earlier: timedelta = timedelta()) -> int:
    return (datetime.fromisoformat(text) - earlier - _EPOCH) // timedelta(milliseconds=1)


HUBSPOT = Connector(
    (
        Parameter("token", "The access token of a private app that may read contacts and deals.", secret=True),
        Parameter("contacts_properties", "The properties of a contact, separated by commas.", _CONTACT),
        Parameter("deals_properties", "The properties of a deal, separated by commas.", _DEAL),
        Parameter("api_url", "The API.", "https://api.hubapi.com"),
    ),
    _streams,
)
