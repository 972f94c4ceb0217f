"""The commands against a whole Counterfoil that `counterfoil up` started."""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from click.testing import CliRunner
from counterfoil_cli.__main__ import COMMANDS, LazyGroup, main

from tests.cli.running import COMMAND, Program, clean_environment, free_listens, outlived
from tests.system.installation import until

Run = Callable[..., subprocess.CompletedProcess[str]]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Up:
    """One running `counterfoil up` on free ports."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._variables = clean_environment() | free_listens()
        process = subprocess.Popen(
            [COMMAND, "up", "--data", str(self.data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._variables,
        )
        self.program = Program(process)
        self.url = f"http://{self._variables['COUNTERFOIL_GATEWAY_LISTEN']}"

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run another command against it, to its end."""
        known = {"COUNTERFOIL_URL": self.url, "COUNTERFOIL_DATA_DIR": str(self.data)}
        return subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=clean_environment() | known | variables,
        )

    def child(self, name: str) -> psutil.Process:
        """Return the process of one service."""
        children = psutil.Process(self.program.process.pid).children()
        return next(child for child in children if child.name() == f"cf-{name}")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A Counterfoil that is ready; ended by Ctrl-C at the end, with exit code 0 and nothing left."""
    made = Up(tmp_path_factory.mktemp("up"))
    try:
        made.program.line("Ctrl-C stops everything.")
        yield made
        children = psutil.Process(made.program.process.pid).children(recursive=True)
        made.program.send(signal.SIGINT)
        assert made.program.end() == 0, made.program.lines
        assert not outlived(children)
    finally:
        made.program.process.kill()
        made.program.process.communicate()


def failed(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with which a command failed."""
    assert result.returncode == 1, result
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.stderr
    return line


def test_up_says_where_everything_is(up: Up):
    text = "\n".join(up.program.lines)
    assert f"REST      {up.url}/v1" in text
    assert f"OpenAPI   {up.url}/openapi.json" in text
    assert "Traces    http://127.0.0.1:" in text
    assert f"API key   in {up.data}/admin.key" in text
    assert (up.data / "admin.key").read_text().strip() not in text


def test_the_console_is_opened_by_a_link_that_works_once(up: Up):
    [shown] = [line for line in up.program.lines if line.startswith("  Console")]
    for url in (shown.split()[1], up.run("console").stdout.strip()):
        assert url.startswith(f"{up.url}/console/sign-in?code=")
        with httpx.Client(timeout=60) as browser:
            assert browser.get(url).headers["location"] == "/console/"
            assert browser.get(f"{up.url}/console/session").json()["principal"] == "admin"
            assert browser.get(f"{up.url}/v1/sources").status_code == 200
        assert httpx.get(url, timeout=60).status_code == 410
    assert "CREDENTIAL_INVALID" in failed(up.run("console", "--key", "cfk_nobody"))


def test_status_shows_what_is_there(up: Up):
    result = up.run("status")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{up.url}: ready" in result.stdout
    for title in ("Datasets", "Sources", "Imports", "Models"):
        assert title in result.stdout


def test_a_key_is_created_used_listed_and_revoked(up: Up):
    made = up.run("keys", "create", "--principal", "admin", "--scope", "governance.read", "--expires", "3")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    key_id = UUID.search(made.stderr).group()
    listed = up.run("keys", "list", COUNTERFOIL_API_KEY=key)
    assert key_id in listed.stdout
    assert key not in listed.stdout
    assert "SCOPE_MISSING" in failed(up.run("keys", "create", "--principal", "admin", "--key", key))
    assert up.run("keys", "revoke", key_id).returncode == 0

    def refused() -> subprocess.CompletedProcess[str] | None:
        listed = up.run("keys", "list", COUNTERFOIL_API_KEY=key)
        return listed if listed.returncode else None

    line = failed(until(refused, seconds=60, what="the gateway has not heard of it"))
    assert "HTTP 401" in line
    assert "trace " in line


def test_the_audit_log_is_exported_and_verified(up: Up, tmp_path: Path):
    assert up.run("keys", "create", "--principal", "admin", "--scope", "governance.read").returncode == 0
    kept = up.run("audit", "checkpoint")
    assert kept.stdout.startswith("counterfoil/default\n"), kept.stderr
    (tmp_path / "kept.txt").write_text(kept.stdout)
    file = tmp_path / "audit.zip"
    written = up.run("audit", "export", file)
    assert written.returncode == 0, written.stderr
    verified = up.run("audit", "verify", file, "--witness", tmp_path / "kept.txt")
    assert verified.returncode == 0, verified.stdout
    assert "OK: nothing was changed" in verified.stdout


def test_a_file_is_imported_once_and_its_bad_rows_are_pointed_to(up: Up, tmp_path: Path):
    file = tmp_path / "events.csv"
    day = "2026-01-31T09:30:00Z"
    file.write_text(f"message_id,type,event,user_id,timestamp\na,track,x,u,{day}\nb,track,y,u,{day}\n,,,,\n")
    first = up.run("import", file, "--dataset", "events")
    assert first.returncode == 0, first.stderr
    assert "SUCCEEDED: 3 rows read, 2 accepted, 0 duplicate, 1 quarantined." in first.stdout
    assert "/v1/quarantine?dataset=events" in first.stdout
    again = up.run("import", file, "--dataset", "events", "--format", "csv")
    assert "0 accepted, 2 duplicate" in again.stdout
    assert "events.csv" in up.run("status").stdout


def test_an_import_that_fails_ends_with_1_and_says_why(up: Up, tmp_path: Path):
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    assert "FILE_UNREADABLE" in failed(up.run("import", tmp_path / "x.parquet", "--dataset", "events"))
    assert "NO_CONTRACT" in failed(up.run("import", tmp_path / "x.parquet", "--dataset", "nowhere"))


def test_an_import_need_not_be_waited_for(up: Up, tmp_path: Path):
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(b'{"message_id":"later","type":"track","event":"x"}\n'))
    result = up.run("import", tmp_path / "events.jsonl.gz", "--dataset", "events", "--no-wait")
    assert result.returncode == 0
    assert f"{up.url}/v1/imports/" in result.stdout


def test_a_file_is_read_by_a_mapping_that_names_its_dataset(up: Up, tmp_path: Path):
    event = {"event_timestamp": "1743500000123456", "event_name": "scroll", "event_bundle_sequence_id": 1}
    (tmp_path / "ga4.jsonl").write_text(json.dumps(event | {"user_pseudo_id": "1.2"}) + "\n")
    result = up.run("import", tmp_path / "ga4.jsonl", "--mapping", "ga4")
    assert "SUCCEEDED: 1 rows read, 1 accepted" in result.stdout, result
    unknown = up.run("import", tmp_path / "ga4.jsonl", "--mapping", "ga4", "--parameter", "colour=red")
    assert "IMPORT_PARAMETER_INVALID" in failed(unknown)


def test_what_an_airbyte_source_wrote_is_imported(up: Up, tmp_path: Path):
    data = {"message_id": "airbyte-1", "type": "track", "timestamp": "2026-01-31T09:30:00Z"}
    message = {"type": "RECORD", "record": {"stream": "events", "data": data, "emitted_at": 1}}
    (tmp_path / "run.txt").write_text(json.dumps(message) + "\n")
    result = up.run("import", tmp_path / "run.txt", "--format", "airbyte")
    assert "SUCCEEDED: 1 rows read, 1 accepted" in result.stdout, result


def test_a_contract_is_checked_and_its_faults_are_listed(up: Up, tmp_path: Path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: v3.0.0\nkind: Nonsense\n")
    result = up.run("contract", "check", bad)
    assert result.returncode == 1
    assert "$.kind" in result.stdout
    (tmp_path / "broken.yaml").write_text("a: [")
    assert up.run("contract", "check", tmp_path / "broken.yaml").returncode == 1


def test_checking_a_contract_says_who_would_be_refused_and_shows_a_record(up: Up, tmp_path: Path):
    total = {"name": "total", "logicalType": "number", "required": True}
    for version, option in (("1.0.0", {}), ("1.1.0", {"logicalTypeOptions": {"minimum": 10}})):
        schema = [{"name": "checked_orders", "properties": [{**total, **option}]}]
        head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "checked", "version": version, "status": "active"}
        (tmp_path / f"{version}.yaml").write_text(yaml.safe_dump({**head, "schema": schema}))
    key = (up.data / "admin.key").read_text().strip()
    with httpx.Client(base_url=up.url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        answer = client.post(
            "/v1/contracts",
            params={"activate": "true"},
            content=(tmp_path / "1.0.0.yaml").read_bytes(),
            headers={"content-type": "application/yaml"},
        )
        assert answer.is_success, answer.text
    same = up.run("contract", "check", tmp_path / "1.0.0.yaml")
    assert same.returncode == 0
    assert "proven compatible" in same.stdout
    narrower = up.run("contract", "check", tmp_path / "1.1.0.yaml")
    assert narrower.returncode == 1
    assert "those who send" in narrower.stdout
    assert "Call it 2.0.0 or higher" in narrower.stdout
    assert "$.total" in narrower.stdout
    assert '{"total":' in narrower.stdout


def contracts_of_a_shop(folder: Path) -> tuple[Path, Path]:
    """Write a contract, and in a folder of its own a version without the field `coupon`."""
    total, coupon = ({"name": name, "logicalType": kind} for name, kind in (("total", "number"), ("coupon", "string")))
    files = (folder / "shop.odcs.yaml", folder / "next" / "shop.odcs.yaml")
    files[1].parent.mkdir()
    for file, version, properties in zip(files, ("1.0.0", "2.0.0"), ([total, coupon], [total]), strict=True):
        head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "piped", "version": version, "status": "active"}
        file.write_text(yaml.safe_dump({**head, "schema": [{"name": "piped_orders", "properties": properties}]}))
    return files


def test_a_pipeline_is_told_whom_a_change_breaks_and_passes_once_they_have_left(up: Up, tmp_path: Path):
    now, _ = contracts_of_a_shop(tmp_path)
    key = (up.data / "admin.key").read_text().strip()
    with httpx.Client(base_url=up.url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        submitted = client.post(
            "/v1/contracts",
            params={"activate": "true"},
            content=now.read_bytes(),
            headers={"content-type": "application/yaml"},
        )
        assert submitted.is_success, submitted.text
        reader = {"name": "weekly report", "dataset": "piped_orders", "fields": ["coupon"], "owner": "finance"}
        consumer = client.post("/v1/consumers", json=reader).json()
        reports = {}
        for name in ("json", "junit", "sarif"):
            report = tmp_path / f"report.{name}"
            checked = up.run("contract", "check", tmp_path, "--format", name, "--output", report)
            assert checked.returncode == 1, checked.stderr
            assert "weekly report (finance)" in checked.stdout
            reports[name] = report.read_text()
        assert [each["compatible"] for each in json.loads(reports["json"])["files"]] == [False, True]
        assert 'failures="1"' in reports["junit"]
        results = json.loads(reports["sarif"])["runs"][0]["results"]
        assert [each["ruleId"] for each in results if each["level"] == "error"] == ["CONSUMER_BROKEN"]
        gone = client.post(f"/v1/consumers/{consumer['consumer_id']}:remove", json={})
        assert gone.is_success, gone.text
    passed = up.run("contract", "check", tmp_path)
    assert passed.returncode == 0, passed.stdout
    assert "a major change" in passed.stdout


def test_a_check_tells_how_many_recent_records_would_be_refused(up: Up, tmp_path: Path):
    total = {"name": "total", "logicalType": "number", "required": True}
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "tried", "status": "active"}
    for version, option in (("1.0.0", {}), ("2.0.0", {"logicalTypeOptions": {"minimum": 10}})):
        schema = [{"name": "tried_orders", "properties": [{**total, **option}]}]
        (tmp_path / f"{version}.yaml").write_text(yaml.safe_dump({**head, "version": version, "schema": schema}))
    key = (up.data / "admin.key").read_text().strip()
    with httpx.Client(base_url=up.url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        submitted = client.post(
            "/v1/contracts",
            params={"activate": "true"},
            content=(tmp_path / "1.0.0.yaml").read_bytes(),
            headers={"content-type": "application/yaml"},
        )
        assert submitted.is_success, submitted.text
        kept = client.post("/v1/datasets/tried_orders/records", json=[{"total": 1}, {"total": 11}, {"total": 2}])
        assert [each["outcome"] for each in kept.json()["verdicts"]] == ["ACCEPTED"] * 3
    tried = up.run("contract", "check", tmp_path / "2.0.0.yaml", "--records", "100")
    assert tried.returncode == 0, tried.stdout + tried.stderr  # the number says that it breaks, and nobody reads it
    assert "2 of the last 3 records would be refused" in tried.stdout


def test_what_cannot_be_checked_is_told_from_what_is_found(up: Up, tmp_path: Path):
    now, _ = contracts_of_a_shop(tmp_path)
    assert up.run("contract", "check", now, COUNTERFOIL_URL="http://127.0.0.1:9").returncode == 2
    assert up.run("contract", "check", now, COUNTERFOIL_API_KEY="cfk_unknown").returncode == 2
    assert up.run("contract", "check", tmp_path / "none.yaml").returncode == 2
    assert up.run("contract", "check").returncode == 2
    (tmp_path / "empty").mkdir()
    empty = up.run("contract", "check", tmp_path / "empty")
    assert (empty.returncode, ".odcs.yaml" in empty.stderr) == (2, True)
    (tmp_path / "large.yaml").write_text("a: " + "x" * (1 << 20))
    large = up.run("contract", "check", tmp_path / "large.yaml", now)
    assert large.returncode == 1, large.stderr
    assert "can come into force" in large.stdout  # a document that is refused does not keep the others from the check


def test_a_service_that_is_killed_comes_back_and_readiness_with_it(up: Up):
    before = up.child("contracts")
    before.kill()
    up.program.line("contracts was killed by SIGKILL; starting it again in 0.2 s.")
    up.program.line("Everything is ready again.")
    assert up.child("contracts").pid != before.pid
    assert up.run("status").returncode == 0


def test_a_second_up_on_the_folder_is_one_line(up: Up):
    result = up.run("up")
    assert (result.returncode, result.stdout) == (2, "")
    assert "in use by another start" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nothing_behind_the_address_is_one_line(counterfoil: Run):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    for arguments in (("status",), ("keys", "list"), ("keys", "revoke", "x")):
        line = failed(counterfoil(*arguments, "--key", "cfk_x", "--url", f"http://127.0.0.1:{port}"))
        assert "counterfoil up" in line


def test_something_else_behind_the_address_is_one_line(counterfoil: Run):
    with socket.create_server(("127.0.0.1", 0)) as holder:  # takes the connection, and answers nothing of use
        url = f"http://127.0.0.1:{holder.getsockname()[1]}"
        process = subprocess.Popen(
            [COMMAND, "keys", "list", "--key", "cfk_x", "--url", url], stderr=subprocess.PIPE, text=True
        )
        connection, _ = holder.accept()
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        connection.close()
        _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "broke off" in text
    assert len(text.splitlines()) == 1


def test_no_key_anywhere_is_one_line(counterfoil: Run):
    assert "COUNTERFOIL_API_KEY" in failed(counterfoil("status"))


def test_a_file_of_unknown_kind_is_a_usage_error(counterfoil: Run, tmp_path: Path):
    (tmp_path / "x.bin").write_text("")
    result = counterfoil("import", "x.bin", "--dataset", "events", "--key", "cfk_x")
    assert result.returncode == 2
    assert "say --format" in result.stderr


def test_a_file_that_goes_nowhere_is_a_usage_error(counterfoil: Run, tmp_path: Path):
    (tmp_path / "x.csv").write_text("")
    result = counterfoil("import", "x.csv", "--key", "cfk_x")
    assert result.returncode == 2
    assert "--dataset" in result.stderr


def test_the_table_of_commands_says_what_each_command_says_of_itself():
    group = main
    assert isinstance(group, LazyGroup)
    for name, (_, _, line) in COMMANDS.items():
        command = group.get_command(None, name)
        assert command.name == name
        assert command.help.splitlines()[0] == line


def test_help_imports_no_command():
    program = (
        "import sys\nfrom click.testing import CliRunner\nfrom counterfoil_cli.__main__ import main\n"
        "result = CliRunner().invoke(main, ['--help'])\nassert result.exit_code == 0, result\n"
        "heavy = {'grpc', 'httpx', 'rich', 'counterfoil_cli.launcher', 'pydantic'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("command", [*COMMANDS, "nonsense"])
def test_every_command_explains_itself_and_others_are_refused(command: str):
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == (2 if command == "nonsense" else 0)
    assert os.linesep in result.output
