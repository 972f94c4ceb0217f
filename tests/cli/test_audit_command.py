"""`counterfoil audit` on exports of real logs, and against a gateway's answers."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.governance.audit_stores import SIGNER, WORKSPACE, checkpoint, exported, tampering, write_log

Run = Callable[..., subprocess.CompletedProcess[str]]
KEY = SIGNER.verifier_key(WORKSPACE).text


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a log of nine entries."""
    file = tmp_path_factory.mktemp("audit") / "governance.db"
    asyncio.run(write_log(file, deeds=[f"keys/{number}" for number in range(9)], checkpoints=(4,)))
    return file


@pytest.fixture(scope="module")
def archive(log: Path) -> Path:
    """Its export."""
    file = log.with_name("export.zip")
    file.write_bytes(asyncio.run(exported(log)).getvalue())
    return file


def test_a_whole_export_passes_and_the_report_says_what_was_compared(counterfoil: Run, archive: Path) -> None:
    result = counterfoil("audit", "verify", archive)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Audit log counterfoil/acme" in result.stdout
    assert "9 hashed again" in result.stdout
    assert "2 with a good signature" in result.stdout
    assert KEY in result.stdout
    assert "say --key" in result.stdout
    assert result.stdout.endswith("OK: nothing was changed, removed, added or moved.\n")


def test_an_unpacked_export_passes_under_its_key_and_a_witness(
    counterfoil: Run, log: Path, archive: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    (tmp_path / "kept.txt").write_text(asyncio.run(checkpoint(log)))
    result = counterfoil("audit", "verify", "unpacked", "--key", KEY, "--witness", "kept.txt")
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 kept elsewhere" in result.stdout
    assert "say --key" not in result.stdout


def test_a_changed_entry_is_named_with_what_it_says(counterfoil: Run, log: Path, tmp_path: Path) -> None:
    tampered = tmp_path / "tampered.db"
    tampered.write_bytes(log.read_bytes())

    async def tamper() -> bytes:
        async with tampering(tampered) as database:
            database.execute(
                "UPDATE audit_entries SET body = CAST(replace(CAST(body AS TEXT), 'keys/3', 'keys/8') AS BLOB)"
            )
        return (await exported(tampered)).getvalue()

    (tmp_path / "tampered.zip").write_bytes(asyncio.run(tamper()))
    result = counterfoil("audit", "verify", "tampered.zip")
    assert result.returncode == 1
    assert "FAILED: 1 thing does not fit." in result.stdout
    assert "ENTRY_CHANGED, entry 3: " in result.stdout
    assert "ada key.create keys/8" in result.stdout


def test_another_key_and_no_export_at_all_are_told(counterfoil: Run, archive: Path, tmp_path: Path) -> None:
    other = SIGNER.verifier_key("zenith").text
    result = counterfoil("audit", "verify", archive, "--key", other)
    assert result.returncode == 1
    assert "KEY_UNKNOWN" in result.stdout
    assert "EXPORT_UNREADABLE" in counterfoil("audit", "verify", archive, "--key", "nonsense").stdout
    (tmp_path / "x.zip").write_text("no archive")
    result = counterfoil("audit", "verify", "x.zip")
    assert (result.returncode, result.stderr) == (1, "")
    assert "EXPORT_UNREADABLE" in result.stdout
    assert counterfoil("audit", "verify", "nothing.zip").returncode == 2


@contextmanager
def answering(status: int, body: bytes, *, lost: int = 0) -> Iterator[str]:
    """Answer as a gateway would; `lost` bytes of the announced ones never come."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/audit:export" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - lost])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_export_is_written_once_and_whole(counterfoil: Run, archive: Path, tmp_path: Path) -> None:
    with answering(200, archive.read_bytes()) as url:
        result = counterfoil("audit", "export", "log.zip", "--url", url, "--key", "cfk_x")
        assert result.returncode == 0, result.stderr
        assert "counterfoil audit verify log.zip" in result.stdout
        assert (tmp_path / "log.zip").read_bytes() == archive.read_bytes()
        again = counterfoil("audit", "export", "log.zip", "--url", url, "--key", "cfk_x")
    assert again.returncode == 1
    assert "is not written over" in again.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["log.zip"]


@pytest.mark.parametrize(
    ("status", "lost", "told"), [(200, 5, "broke off"), (403, 0, "SCOPE_MISSING"), (503, 0, "HTTP 503")]
)
def test_an_export_that_does_not_come_whole_leaves_no_file(
    counterfoil: Run, tmp_path: Path, status: int, lost: int, told: str
) -> None:
    body = b'{"detail":"no","reason":"SCOPE_MISSING"}' if status == 403 else b"x" * 100
    with answering(status, body, lost=lost) as url:
        result = counterfoil("audit", "export", "log.zip", "--url", url, "--key", "cfk_x")
    assert result.returncode == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_export_to_nowhere_is_one_line(counterfoil: Run, archive: Path) -> None:
    with answering(200, archive.read_bytes()) as url:
        result = counterfoil("audit", "export", "no/such/folder/log.zip", "--url", url, "--key", "cfk_x")
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
