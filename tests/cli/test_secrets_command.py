"""`counterfoil secrets`: what it makes, and that it makes it once."""

import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from counterfoil_chassis.identity import load_private_key, load_trusted_keys
from counterfoil_cli.env import CALL_ORDER
from counterfoil_cli.folder import API_KEY

Run = Callable[..., subprocess.CompletedProcess[str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def made(counterfoil: Run, tmp_path: Path) -> Path:
    assert counterfoil("secrets", tmp_path / "secrets", "--database", "db.internal:6432").returncode == 0
    return tmp_path / "secrets"


def test_each_process_gets_a_folder_with_what_is_its_own_and_nobody_else_may_read_it(made: Path):
    databases = {f"{name}/counterfoil_database_url" for name in CALL_ORDER if name != "gateway"}
    private = {f"{name}/private_key.pem" for name in CALL_ORDER}
    own = {"admin/admin.key", "governance/counterfoil_governance_bootstrap_key_sha256"} | databases | private
    public = {f"trusted/{name}.pem" for name in CALL_ORDER}
    assert set(contents(made)) == own | public | {"postgres/password"}
    assert {(made / file).stat().st_mode & 0o777 for file in own} == {0o600}
    assert {file.parent.stat().st_mode & 0o777 for file in map(made.joinpath, own)} == {0o700}
    assert (made / "postgres" / "password").stat().st_mode & 0o777 == 0o640


def test_what_belongs_together_fits(made: Path):
    trusted = load_trusted_keys(made / "trusted")
    for name in CALL_ORDER:
        assert load_private_key(made / name / "private_key.pem").public_key() == trusted[name]
    password = (made / "postgres" / "password").read_text()
    assert len(password) >= 32
    assert (made / "models" / "counterfoil_database_url").read_text() == (
        f"postgresql://counterfoil:{password}@db.internal:6432"
    )
    key = (made / "admin" / "admin.key").read_text().strip()
    assert API_KEY.fullmatch(key)
    digest = (made / "governance" / "counterfoil_governance_bootstrap_key_sha256").read_text()
    assert digest == sha256(key.encode()).hexdigest()


def test_a_second_run_changes_nothing_and_makes_what_was_lost(counterfoil: Run, made: Path):
    before = contents(made)
    (made / "trusted" / "graph.pem").unlink()
    (made / "models" / "counterfoil_database_url").unlink()
    again = counterfoil("secrets", made, "--database", "db.internal:6432")
    assert again.stdout.splitlines()[:-1] == ["made models/counterfoil_database_url", "made trusted/graph.pem"]
    assert contents(made) == before


def test_no_secret_is_printed(counterfoil: Run, tmp_path: Path):
    said = counterfoil("secrets", tmp_path / "secrets")
    for file, content in contents(tmp_path / "secrets").items():
        assert content.decode().strip() not in said.stdout + said.stderr, file


def test_the_digest_follows_an_admin_key_that_was_replaced(counterfoil: Run, made: Path):
    key = f"cfk_{'a' * 43}"
    (made / "admin" / "admin.key").write_text(key)
    assert counterfoil("secrets", made).returncode == 0
    digest = (made / "governance" / "counterfoil_governance_bootstrap_key_sha256").read_text()
    assert digest == sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("admin/admin.key", "cfk_cut", "admin.key holds no API key"),
        ("graph/private_key.pem", "", "private_key.pem cannot be read"),
    ],
)
def test_a_secret_that_is_broken_is_named_and_kept(counterfoil: Run, made: Path, file: str, content: str, says: str):
    (made / file).write_text(content)
    refused = counterfoil("secrets", made)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert says in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (made / file).read_text() == content


def test_a_file_where_the_folder_should_be_is_named(counterfoil: Run, tmp_path: Path):
    (tmp_path / "secrets").write_text("a file")
    refused = counterfoil("secrets", tmp_path / "secrets")
    assert refused.returncode == 2
    assert f"{tmp_path / 'secrets'}" in refused.stderr
    assert refused.stderr.count("\n") == 1
