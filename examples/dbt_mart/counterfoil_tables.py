"""A plugin of dbt-duckdb: a source is one SELECT, answered by Counterfoil as Arrow with a receipt."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import Any

import pyarrow as pa
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import SourceConfig

ARROW = "application/vnd.apache.arrow.stream"


class Plugin(BasePlugin):
    """Loads `meta.sql` of a source from `POST /v1/sql`; the receipt's id is a column of every row."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Take where Counterfoil is, and the key."""
        self._url = plugin_config["url"].rstrip("/") + "/v1/sql"
        self._key = plugin_config["api_key"]

    def load(self, source_config: SourceConfig) -> pa.Table:
        """Return a source's rows."""
        asked = {"sql": source_config["sql"], "receipt": True, "purpose": "reporting"}
        request = urllib.request.Request(  # noqa: S310 - the address is the profile's own
            self._url,
            data=json.dumps(asked).encode(),
            headers={"X-Api-Key": self._key, "Content-Type": "application/json", "Accept": ARROW},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            receipt = answer.headers["Counterfoil-Receipt-Id"]
            table = pa.ipc.open_stream(io.BytesIO(answer.read())).read_all()
        return table.append_column("receipt_id", pa.array([receipt] * len(table), pa.string()))
