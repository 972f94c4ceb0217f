"""The supervisor, over real forked processes."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from counterfoil_cli.supervisor import Restarts, last_lines
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.running import Program

Supervised = Callable[[str], Program]


def started(program: Program, *names: str) -> dict[str, psutil.Process]:
    """Return the processes by name once each has said its pid; they may come in any order."""
    found: dict[str, psutil.Process] = {}
    assert program.process.stdout is not None
    while set(names) - found.keys():
        line = program.process.stdout.readline()
        assert line, program.lines
        program.lines.append(line.rstrip("\n"))
        name, _, pid = line.strip().partition(" ")
        if name in names and pid.isdigit():
            found[name] = psutil.Process(int(pid))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_every_process_in_reverse_order_and_ends_with_0(supervised: Supervised, number: signal.Signals):
    program = supervised("three")
    processes = started(program, "first", "second", "third")
    program.send(number)
    assert program.end() == 0
    assert program.lines[-4:] == ["third stopped", "second stopped", "first stopped", "over 0"]
    assert not [process for process in processes.values() if process.is_running()]


def test_a_killed_process_is_started_again_with_a_new_pid(supervised: Supervised):
    program = supervised("three")
    before = started(program, "first", "second", "third")["second"]
    before.kill()
    assert program.line("second was killed") == "second was killed by SIGKILL; starting it again in 0.02 s."
    after = started(program, "second")["second"]
    assert after.pid != before.pid
    if "restarted second" not in program.lines:  # the process itself may be faster
        program.line("restarted second")
    program.send(signal.SIGTERM)
    assert program.end() == 0


def test_five_deaths_within_a_minute_stop_everything_with_1_and_show_the_log(supervised: Supervised, tmp_path: Path):
    program = supervised("deaths")
    assert program.end() == 1
    delays = [line for line in program.lines if line.startswith("broken ended with code 1; ")]
    assert [line.rpartition(" in ")[2] for line in delays] == ["0.02 s.", "0.04 s.", "0.08 s.", "0.1 s."]
    assert "broken ended with code 1, 5 times within 60 s: stopping everything." in program.lines
    assert program.lines.count("  RuntimeError: broken on purpose") == 5
    assert "first stopped" in program.lines
    assert (tmp_path / "broken.log").stat().st_mode & 0o777 == 0o600


def test_a_process_that_ignores_sigterm_is_killed_at_its_bound(supervised: Supervised):
    program = supervised("stubborn")
    mule = started(program, "mule")["mule"]
    program.send(signal.SIGTERM)
    assert program.end() == 0
    assert "mule did not stop within 0.2 s: killed." in program.lines
    assert not mule.is_running()


def test_a_second_ctrl_c_ends_the_patience(supervised: Supervised):
    program = supervised("impatient")
    processes = started(program, "mule", "ass")
    program.send(signal.SIGINT)
    while program.process.poll() is None:
        time.sleep(0.3)  # two signals at once would be one
        program.send(signal.SIGINT)
    assert program.end() == 0
    assert not [process for process in processes.values() if process.is_running()]


def test_no_child_outlives_a_parent_that_was_killed(supervised: Supervised):
    program = supervised("three")
    processes = started(program, "first", "second", "third")
    program.process.kill()
    _, alive = psutil.wait_procs(list(processes.values()), timeout=60)
    assert not alive


def test_what_a_killed_process_had_started_is_killed_with_it(supervised: Supervised):
    program = supervised("grandchild")
    grandchild = started(program, "grandchild")["grandchild"]
    program.send(signal.SIGTERM)
    assert program.end() == 0
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_runs_once_is_not_started_again_and_its_code_is_heard(supervised: Supervised):
    program = supervised("once")
    assert program.end() == 7
    assert program.lines.count("ended with 7") == 1


def test_a_process_that_cannot_start_ends_the_start_with_2_and_its_reason(supervised: Supervised):
    program = supervised("refusal")
    assert program.end() == 2
    assert program.lines[0] == "refuser cannot start:"
    assert "  the key is missing" in program.lines


def test_once_all_is_settled_a_process_that_cannot_start_is_tried_again(supervised: Supervised):
    program = supervised("settled")
    assert program.end() == 1
    assert "restarted refuser" in program.lines


@given(st.integers(min_value=1, max_value=60))
def test_the_delay_doubles_from_a_fifth_of_a_second_to_five_seconds(deaths: int):
    delay = Restarts().delay(deaths)
    assert delay == pytest.approx(min(0.2 * 2 ** (deaths - 1), 5.0))


def test_a_log_that_grows_too_long_begins_anew_while_its_process_goes_on(supervised: Supervised, tmp_path: Path):
    program = supervised("talkative")
    started(program, "first")
    log, kept = tmp_path / "talker.log", tmp_path / "talker.log.1"
    deadline, longest, begun = time.monotonic() + 60, 0, set()
    while len(begun) < 3:  # kept three times
        assert time.monotonic() < deadline, begun
        if kept.exists():
            begun.add(kept.read_bytes()[:12])
        longest = max(longest, log.stat().st_size if log.exists() else 0)
        time.sleep(0.02)  # nobody tells when a file is replaced
    program.send(signal.SIGTERM)
    assert program.end() == 0
    assert longest < 10_000_000
    assert b"\0" not in log.read_bytes()  # it is written at its end, wherever that is
    assert kept.stat().st_mode & 0o077 == 0


def test_the_last_lines_of_a_log_leave_out_blank_ones_and_cut_long_ones(tmp_path: Path):
    log = tmp_path / "x.log"
    log.write_bytes(b"one\n\n\xff two\n" + b"x" * 1000 + b"\n\n")
    assert last_lines(log, 2) == ["\ufffd two", "x" * 400]
    assert last_lines(tmp_path / "absent.log", 2) == []
