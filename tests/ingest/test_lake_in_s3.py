"""The lake in S3-compatible storage, of a server in this process: as in folders, and nothing erased is left there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import orjson
import psutil
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest.delta import WorkspaceTables
from counterfoil_ingest.lake_calls import LakeProcess
from counterfoil_ingest.lake_places import LakePlace, lake_place
from counterfoil_ingest.read_errors import LakeUnavailableError
from counterfoil_ingest.registry import ColumnType
from moto.server import ThreadedMotoServer

from tests.byte_scan import holding
from tests.ingest.conftest import LogRig
from tests.ingest.read_rig import SALES, contract, read_side, record, sale

KEYS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_REGION": "eu-west-1"}
SECRET = "ada-lovelace-1815"


@dataclass
class Store:
    """A running server with one bucket."""

    client: Any
    options: Path

    def place(self, folder: Path) -> LakePlace:
        return lake_place("s3://counterfoil/the/lake", self.options, folder=folder)

    def names(self) -> list[str]:
        """Return the keys of the objects that hold anything; an empty one stands for a folder."""
        listed = self.client.list_objects_v2(Bucket="counterfoil").get("Contents", ())
        return [each["Key"] for each in listed if each["Size"]]

    def download(self, folder: Path) -> Path:
        """Copy every object to files."""
        for name in self.names():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file("counterfoil", name, str(path))
        return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def store(server: str, tmp_path: Path) -> Iterator[Store]:
    options = tmp_path / "storage.json"
    options.write_bytes(orjson.dumps(KEYS | {"AWS_ENDPOINT_URL": server}))
    client = boto3.client(
        "s3",
        endpoint_url=server,
        region_name=KEYS["AWS_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    made = Store(client, options)
    client.create_bucket(Bucket="counterfoil", CreateBucketConfiguration={"LocationConstraint": KEYS["AWS_REGION"]})
    yield made
    for each in client.list_objects_v2(Bucket="counterfoil").get("Contents", ()):
        client.delete_object(Bucket="counterfoil", Key=each["Key"])
    client.delete_bucket(Bucket="counterfoil")
    client.close()


async def test_rows_are_written_there_read_from_there_and_found_again(rig: LogRig, store: Store) -> None:
    rig.contracts.put(contract("sales", SALES))
    folder = rig.folder / "lake"
    async with read_side(rig, place=store.place(folder), apart=True) as side:
        await side.append(sale(1), sale(2))
        await side.flush()
        assert isinstance(side.calls, LakeProcess)
        command = psutil.Process(side.calls.pid).cmdline()
        assert not any(secret in word for word in command for secret in KEYS.values())
        assert {name.rsplit(".")[-1] for name in store.names()} == {"json", "parquet"}
        assert list(folder.rglob("*.parquet")) == []
        assert [row["sale_id"] for row in await side.rows("sales", ["sale_id"])] == [1, 2]
        assert len(list(folder.rglob("*.parquet"))) == 1  # the copy of what was read
    async with read_side(rig, place=store.place(rig.folder / "elsewhere")) as side:
        before = store.names()
        await side.append(sale(3))
        await side.flush()
        assert set(before) < set(store.names())
        assert [row["sale_id"] for row in await side.rows("sales", ["sale_id"])] == [1, 2, 3]


async def test_a_day_that_is_over_becomes_one_file_there_too(rig: LogRig, store: Store) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, place=store.place(rig.folder / "lake")) as side:
        for number in (3, 1, 2):
            await side.append(sale(number))
            await side.flush()
        tables = WorkspaceTables(store.place(rig.folder / "copies").below("acme"), life=f"{rig.log.epoch}/0")
        while tables.settle(lambda _: "sold_at", before=date(2023, 11, 15)):
            pass
    async with read_side(rig, place=store.place(rig.folder / "elsewhere")) as side:
        table = await side.lake.table("acme", "sales")
        assert table is not None
        (file,) = table.files
        assert pq.ParquetFile(file.path).read(["sale_id"]).column(0).to_pylist() == [1, 2, 3]
        assert [row["sale_id"] for row in await side.rows("sales", ["sale_id"])] == [3, 1, 2]


async def test_nothing_erased_is_left_there_or_in_a_copy(rig: LogRig, store: Store, tmp_path: Path) -> None:
    rig.contracts.put(contract("people", {"name": ColumnType.VARCHAR}))
    async with read_side(rig, place=store.place(rig.folder / "lake")) as side:
        await side.append(record("people", "1", {"name": SECRET}), record("people", "2", {"name": "bob"}))
        await side.flush()
        assert len(await side.rows("people", ["name"])) == 2
        assert holding(store.download(tmp_path / "before"), SECRET)
        assert holding(rig.folder / "lake", SECRET)
        assert (await side.eraser.erase("acme", 0, [0], texts=[])).remaining == 0
        assert holding(store.download(tmp_path / "after"), SECRET) == []
        assert holding(rig.folder / "lake", SECRET) == []
        assert await side.rows("people", ["name"]) == [{"name": "bob"}]


async def test_who_reads_what_is_gone_is_told_to_ask_again(rig: LogRig, store: Store) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, place=store.place(rig.folder / "lake")) as side:
        await side.append(sale(1))
        await side.flush()
        for name in store.names():
            if name.endswith(".parquet"):
                store.client.delete_object(Bucket="counterfoil", Key=name)
        with pytest.raises(LakeUnavailableError):
            await side.lake.table("acme", "sales")


def test_options_that_open_nothing_are_refused_at_the_start(tmp_path: Path) -> None:
    options = tmp_path / "storage.json"
    options.write_text('{"AWS_ALLOW_EVERYTHING": "true"}')
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID"):
        lake_place("s3://bucket", options, folder=tmp_path)
