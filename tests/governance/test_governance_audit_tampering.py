"""Whoever can write to the store cannot do so unseen: an export of what was tampered with fails, and says where."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from counterfoil_chassis import audit_verify
from counterfoil_governance.audit_checkpoints import CheckpointSigner
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.governance.audit_stores import (
    SIGNER,
    TABLES,
    WORKSPACE,
    checkpoint,
    exported,
    report_on,
    tampering,
    write_log,
)

SIZE = 13
DEEDS = [f"keys/{number}" for number in range(SIZE)]
OF_ENTRIES = {"ENTRY_CHANGED", "LEAF_CHANGED", "COLUMN_CHANGED", "ENTRY_MISSING", "ENTRY_MOVED"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 13 entries with checkpoints over 5, 10 and 13."""
    file = tmp_path_factory.mktemp("audit") / "governance.db"
    asyncio.run(write_log(file, deeds=DEEDS, checkpoints=(5, 10, 13)))
    return file


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "copy.db"))


async def test_the_untouched_log_passes(copy: Path) -> None:
    report = await report_on(copy)
    assert report.ok, report.text()
    assert (report.entries, report.nodes, report.checkpoints) == (13, 10, 3)


@pytest.fixture(scope="module")
def cells(original: Path) -> list[tuple[str, int, str, str, bytes]]:
    """Every value of the audit tables: table, rowid, column, type, bytes (integers as eight bytes)."""
    found = []
    database = sqlite3.connect(original)
    for table in TABLES:
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        for column in columns:
            query = f'SELECT rowid, typeof("{column}"), "{column}" FROM {table} ORDER BY rowid'
            for rowid, kind, value in database.execute(query).fetchall():
                data = value.to_bytes(8, "big", signed=True) if kind == "integer" else value
                found.append((table, rowid, column, kind, data.encode() if kind == "text" else data))
    database.close()
    return found


def value_of(kind: str, data: bytes) -> int | bytes:
    return int.from_bytes(data, "big", signed=True) if kind == "integer" else data


async def tampered(original: Path, file: Path, cell: tuple[str, int, str, str, bytes], *, at: int, flip: int) -> None:
    """Copy the log with one byte of one value changed; skip the example where the database itself refuses it."""
    table, rowid, column, kind, data = cell
    changed = bytearray(data)
    changed[at % len(data)] ^= flip
    shutil.copy(original, file)
    async with tampering(file) as database:
        put = "CAST(? AS TEXT)" if kind == "text" else "?"
        try:
            database.execute(
                f'UPDATE {table} SET "{column}" = {put} WHERE rowid = ?',
                (value_of(kind, bytes(changed)), rowid),
            )
        except sqlite3.IntegrityError:
            assume(False)  # the place is taken


def entry_of(original: Path, table: str, rowid: int) -> range:
    """Return the indices of the entries that a row is of."""
    database = sqlite3.connect(original)
    [row] = database.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchall()
    database.close()
    if table == "audit_entries":
        return range(row[1], row[1] + 1)
    if table == "audit_nodes":
        return range(row[2] << row[1], (row[2] + 1) << row[1])
    return range(0)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
async def test_any_one_byte_changed_is_found_and_named(
    original: Path, cells: list[tuple[str, int, str, str, bytes]], data: st.DataObject
) -> None:
    # First the column, then the row: there are few checkpoints, but each of their columns counts as much.
    columns = sorted({(table, column) for table, _, column, _, _ in cells})
    table, column = data.draw(st.sampled_from(columns), label="column")
    cell = data.draw(st.sampled_from([each for each in cells if (each[0], each[2]) == (table, column)]), label="cell")
    at = data.draw(st.integers(0, len(cell[4]) - 1), label="at")
    flip = data.draw(st.integers(1, 255), label="flip")
    file = original.with_name("tampered.db")
    await tampered(original, file, cell, at=at, flip=flip)
    report = await report_on(file)
    assert not report.ok, report.text()
    named = {(found.reason, found.index) for found in report.findings}
    if table == "audit_entries":
        assert {reason for reason, index in named if index in entry_of(original, table, cell[1])} & OF_ENTRIES, named
    elif table == "audit_nodes":
        first = entry_of(original, table, cell[1]).start
        assert named & {("NODE_CHANGED", first), ("NODE_MISSING", first)}, named
    elif table == "audit_checkpoints":
        assert {reason.split("_")[0] for reason, _ in named} <= {"CHECKPOINT", "KEY", "ENTRY"}, named
        assert any(reason.startswith("CHECKPOINT_") for reason, _ in named), named


async def reasons(file: Path, **known: Any) -> list[tuple[str, int]]:
    report = await report_on(file, **known)
    return [(found.reason, found.index) for found in report.findings]


async def test_an_entry_that_was_deleted_is_missed(copy: Path) -> None:
    async with tampering(copy) as database:
        database.execute('DELETE FROM audit_entries WHERE "index" = 6')
    assert ("ENTRY_MISSING", 6) in await reasons(copy)


async def test_a_log_that_was_cut_off_is_shorter_than_what_was_signed(copy: Path) -> None:
    async with tampering(copy) as database:
        database.execute('DELETE FROM audit_entries WHERE "index" >= 11')
        database.execute('DELETE FROM audit_nodes WHERE ("index" + 1) << level > 11')
        database.execute("UPDATE audit_heads SET size = 11")
    assert ("ENTRY_MISSING", 11) in await reasons(copy)


async def test_a_log_cut_off_at_a_checkpoint_is_told_by_a_witness_alone(copy: Path) -> None:
    witness = await checkpoint(copy)
    async with tampering(copy) as database:
        database.execute('DELETE FROM audit_entries WHERE "index" >= 10')
        database.execute('DELETE FROM audit_nodes WHERE ("index" + 1) << level > 10')
        database.execute("DELETE FROM audit_checkpoints WHERE number = 2")
        database.execute("UPDATE audit_heads SET size = 10, checkpoints = 2")
    assert await reasons(copy) == []
    assert await reasons(copy, witnesses=(witness,)) == [("ENTRY_MISSING", 10)]


async def test_entries_that_changed_places_are_named(copy: Path) -> None:
    async with tampering(copy) as database:
        for there, here in ((99, 3), (3, 8), (8, 99)):
            database.execute('UPDATE audit_entries SET "index" = ? WHERE "index" = ?', (there, here))
    found = await reasons(copy)
    assert [each for each in found if each[0] == "ENTRY_MOVED"] == [("ENTRY_MOVED", 3), ("ENTRY_MOVED", 8)]


async def test_an_entry_behind_the_end_is_found_and_never_signed(copy: Path) -> None:
    put = (
        "INSERT INTO audit_entries SELECT workspace, 13, 'other', principal, resource, body, leaf "
        'FROM audit_entries WHERE "index" = 0'
    )
    async with tampering(copy) as database:
        database.execute(put)
    assert await reasons(copy) == [("ENTRY_UNEXPECTED", 13)]
    async with tampering(copy) as database:
        database.execute("UPDATE audit_heads SET size = 14")
    assert set(await reasons(copy)) == {
        ("ENTRY_MOVED", 13),
        ("COLUMN_CHANGED", 13),
        ("NODE_MISSING", 12),
        ("ENTRY_UNSIGNED", 13),
    }


async def test_an_entry_rewritten_with_its_hash_does_not_fit_the_tree(copy: Path) -> None:
    await rewrite(copy, 6, upwards=False)
    assert ("NODE_CHANGED", 6) in await reasons(copy)


async def test_an_entry_rewritten_with_every_hash_above_it_does_not_fit_what_was_signed(copy: Path) -> None:
    await rewrite(copy, 6, upwards=True)
    report = await report_on(copy)
    assert [(found.reason, found.index) for found in report.findings] == [("CHECKPOINT_ROOT", -1)] * 2
    assert report.checkpoints == 3  # their signatures are good: they are of another log


async def rewrite(file: Path, index: int, *, upwards: bool) -> None:
    """Change an entry and its leaf, and the hashes above it if asked, as one with the file but no key can."""
    async with tampering(file) as database:
        [(body,)] = database.execute('SELECT body FROM audit_entries WHERE "index" = ?', (index,)).fetchall()
        forged = body.replace(b'"key.create"', b'"key.revoke"')
        database.execute(
            'UPDATE audit_entries SET body = ?, leaf = ? WHERE "index" = ?',
            (forged, audit_verify.leaf_hash(forged), index),
        )
        level = 1
        while upwards and index >> level < SIZE >> level:
            below = (
                ('SELECT leaf FROM audit_entries WHERE "index" IN (?, ?) ORDER BY "index"', ())
                if level == 1
                else (
                    'SELECT hash FROM audit_nodes WHERE "index" IN (?, ?) AND level = ? ORDER BY "index"',
                    (level - 1,),
                )
            )
            left = index >> level << 1
            hashes = [row[0] for row in database.execute(below[0], (left, left + 1, *below[1])).fetchall()]
            database.execute(
                'UPDATE audit_nodes SET hash = ? WHERE level = ? AND "index" = ?',
                (audit_verify.node_hash(*hashes), level, index >> level),
            )
            level += 1


async def test_a_log_written_and_signed_anew_is_told_by_a_witness_alone(original: Path, tmp_path: Path) -> None:
    witness = await checkpoint(original)
    forged = tmp_path / "forged.db"
    await write_log(forged, deeds=[*DEEDS[:7], "keys/forged", *DEEDS[8:]], checkpoints=(5, 10, 13))
    assert await reasons(forged) == []
    assert await reasons(forged, witnesses=(witness,)) == [("WITNESS_ROOT", -1)]


async def test_a_log_signed_anew_by_another_key_is_told_by_the_pinned_key_and_by_a_witness(
    original: Path, tmp_path: Path
) -> None:
    witness, forger = await checkpoint(original), CheckpointSigner(b"f" * 32)
    forged = tmp_path / "forged.db"
    await write_log(forged, deeds=DEEDS, checkpoints=(10,), signer=forger)
    assert await reasons(forged, signer=forger) == []
    pinned = (SIGNER.verifier_key(WORKSPACE).text,)
    assert ("KEY_UNKNOWN", -1) in await reasons(forged, signer=forger, keys=pinned)
    assert ("WITNESS_SIGNATURE", -1) in await reasons(forged, signer=forger, witnesses=(witness,))


async def test_a_fork_is_told_by_the_checkpoint_of_the_other_branch(copy: Path, tmp_path: Path) -> None:
    branch = Path(shutil.copy(copy, tmp_path / "branch.db"))
    await write_log(copy, deeds=["keys/here"])
    await write_log(branch, deeds=["keys/there"])
    assert await reasons(copy) == await reasons(branch) == []
    assert await reasons(copy, witnesses=(await checkpoint(branch),)) == [("WITNESS_ROOT", -1)]
    assert await reasons(copy, witnesses=(await checkpoint(copy),)) == []


async def test_a_new_key_of_the_service_goes_on_with_the_log(copy: Path) -> None:
    changed = CheckpointSigner(b"n" * 32)
    old, new = SIGNER.verifier_key(WORKSPACE).text, changed.verifier_key(WORKSPACE).text
    report = await report_on(copy, signer=changed, keys=(old, new))
    assert (report.ok, report.checkpoints) == (True, 4), report.text()
    assert set(report.keys) == {old, new}
    assert ("KEY_UNKNOWN", -1) in await reasons(copy, signer=changed, keys=(new,))


async def test_a_witness_is_a_note_or_the_answer_that_held_it(copy: Path) -> None:
    note = await checkpoint(copy)
    report = await report_on(copy, witnesses=(note, json.dumps({"tree_size": 13, "note": note})))
    assert (report.ok, report.witnesses) == (True, 2)
    other = note.replace(f"counterfoil/{WORKSPACE}", "counterfoil/zenith")
    assert await reasons(copy, witnesses=("no checkpoint", other, "{")) == [
        ("WITNESS_UNREADABLE", -1),
        ("WITNESS_ORIGIN", -1),
        ("WITNESS_UNREADABLE", -1),
    ]


@pytest.fixture(scope="module")
def files(original: Path) -> dict[str, bytes]:
    """The files of an export."""
    with zipfile.ZipFile(asyncio.run(exported(original))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(files: Mapping[str, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_an_export_the_verifier_reports_and_does_not_fall_over(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([each for each in files if each.endswith(("l", "n", "key.txt"))]), label="file")
    at = data.draw(st.integers(0, len(files[name]) - 1), label="at")
    junk = data.draw(st.binary(max_size=3), label="junk")
    end = at + data.draw(st.integers(0, 40), label="lost")
    report = audit_verify.verify(archive_of({**files, name: files[name][:at] + junk + files[name][end:]}))
    assert report.ok or report.findings
    assert report.text()


@pytest.mark.parametrize(
    "name", ["head.json", "entries.jsonl", "leaves.jsonl", "nodes.jsonl", "checkpoints.jsonl", "key.txt"]
)
def test_an_export_without_one_of_its_files_is_none(files: dict[str, bytes], name: str) -> None:
    report = audit_verify.verify(archive_of({each: data for each, data in files.items() if each != name}))
    assert [found.reason for found in report.findings] == ["EXPORT_UNREADABLE"]
    assert name in report.findings[0].detail


def test_what_is_no_archive_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no archive")
    for place in (tmp_path / "x.zip", tmp_path / "nothing.zip", tmp_path):
        report = audit_verify.verify(place)
        assert [found.reason for found in report.findings] == ["EXPORT_UNREADABLE"]


async def test_what_an_entry_says_cannot_steer_the_reader_s_terminal(copy: Path) -> None:
    async with tampering(copy) as database:
        database.execute(
            "UPDATE audit_entries SET body = CAST(replace(CAST(body AS TEXT), 'keys/4', '\\u001b[2J') AS BLOB)"
        )
    text = (await report_on(copy)).text()
    assert "key.create \\x1b[2J" in text
    assert "\x1b" not in text
