"""Artifacts in the database, and those that an earlier release kept in files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from counterfoil.models.v1 import forecasts_pb2, models_pb2
from counterfoil_chassis.database import Database
from counterfoil_chassis.revisions import prepare
from counterfoil_models.errors import ArtifactAbsentError, ArtifactCorruptError
from counterfoil_models.files.artifacts import ArtifactFiles
from counterfoil_models.sql.stores import SqlStores

from tests.models.shop import demand
from tests.postgres import direct

pytestmark = pytest.mark.both_engines("models")

DATA = b'{"kind":"forecast"}'
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = os.environ.get("COUNTERFOIL_MODELS_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'models.db'}")
    prepare(url, "counterfoil_models")
    opened = Database(url)
    yield opened
    await opened.close()


async def put(stores: SqlStores, data: bytes) -> str:
    async with stores.begin() as transaction:
        return await transaction.artifacts.put(data)


async def get(stores: SqlStores, sha256: str) -> bytes:
    async with stores.read() as transaction:
        return await transaction.artifacts.get(sha256)


async def test_an_artifact_is_kept_once_under_its_hash(database):
    stores = SqlStores(database, files=None)
    assert await put(stores, DATA) == SHA256 == await put(stores, DATA)
    assert await get(stores, SHA256) == DATA
    async with stores.read() as transaction:
        assert await transaction.artifacts.known() == {SHA256}


async def test_an_artifact_that_was_changed_is_never_returned(database):
    stores = SqlStores(database, files=None)
    await put(stores, DATA)
    with direct(database.url) as past_it:
        literal = "X'7B7D'" if database.url.startswith("sqlite") else r"'\x7B7D'::bytea"
        past_it.execute(f"UPDATE artifact SET bytes = {literal}")
    with pytest.raises(ArtifactCorruptError) as failure:
        await get(stores, SHA256)
    assert failure.value.metadata == {
        "artifact_sha256": SHA256,
        "actual_sha256": hashlib.sha256(b"{}").hexdigest(),
    }


async def test_files_of_an_earlier_release_are_read_where_the_database_has_none(database, tmp_path):
    file = tmp_path / f"{SHA256}.json"
    stores = SqlStores(database, files=ArtifactFiles(tmp_path))
    with pytest.raises(ArtifactCorruptError, match="gone"):
        await get(stores, SHA256)
    file.write_bytes(DATA)
    assert await get(stores, SHA256) == DATA
    file.write_bytes(b"{}")
    with pytest.raises(ArtifactCorruptError, match="have the hash"):
        await get(stores, SHA256)
    await put(stores, DATA)
    assert await get(stores, SHA256) == DATA


async def test_where_files_are_out_of_reach_nothing_is_said_of_the_artifact(database):
    with pytest.raises(ArtifactAbsentError) as failure:
        await get(SqlStores(database, files=None), SHA256)
    assert failure.value.retry_after is not None


async def test_a_champion_whose_artifact_is_a_file_still_forecasts(shop, client):
    await client(client.models.CreateModel, demand())
    version = await client.trained("demand")
    request = models_pb2.PromoteModelVersionRequest(model_id="demand", version=version.version)
    await client(client.models.PromoteModelVersion, request)
    folder = shop.data_dir / "artifacts"
    folder.mkdir()
    with direct(shop.settings.database_url) as database:
        [(kept,)] = database.execute("SELECT bytes FROM artifact")
        database.execute("DELETE FROM artifact")
    (folder / f"{version.artifact_sha256}.json").write_bytes(kept)
    question = forecasts_pb2.CreateForecastRequest(model_id="demand", horizon_days=5)
    made = await client(client.forecasts.CreateForecast, question)
    assert made.model_version == version.version


async def test_a_start_brings_files_into_the_database_and_leaves_those_that_are_damaged(world, caplog):
    folder = world.data_dir / "artifacts"
    folder.mkdir()
    (folder / f"{SHA256}.json").write_bytes(DATA)
    (folder / f"{'0' * 64}.json").write_bytes(b"half")
    (folder / f".{'1' * 64}.ab12").write_bytes(b"a draft")
    for _ in range(2):
        with caplog.at_level(logging.WARNING, logger="counterfoil_models"):
            async with world.serving():
                pass
    with direct(world.settings.database_url) as database:
        assert [(sha256, bytes(data)) for sha256, data in database.execute("SELECT sha256, bytes FROM artifact")] == [
            (SHA256, DATA)
        ]
    told = [record for record in caplog.records if record.name == "counterfoil_models.files.artifacts"]
    assert {record.__dict__["file"] for record in told} == {f"{'0' * 64}.json"}
    assert len(list(folder.iterdir())) == 3
