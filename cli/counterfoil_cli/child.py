"""What a forked child does between fork and exit: cut loose from the parent, run one function, end."""

import atexit
import ctypes
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_NAME = 15
LOG_ROTATES_AT = 16 * 1024 * 1024
INTERRUPTED = 130


def become(
    run: Callable[[], object],
    *,
    name: str,
    parent: int,
    log: Path | None,
    signals: frozenset[signal.Signals],
    mask: set[signal.Signals],
) -> NoReturn:
    """Turn a process that was just forked into `run`, and end with it; never returns into the caller's stack.

    `signals` get their default action back, then `mask` holds again; output goes to `log` where one is given.
    """
    code = 1
    try:
        os.setsid()  # a Ctrl-C reaches the parent alone: it stops the children in order
        signal.set_wakeup_fd(-1)
        for number in signals:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _end_with_parent(parent, name=name)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if log is not None:
            _write_to(log)
        atexit._clear()  # noqa: SLF001 - no public way: the parent's exit functions are not ours
        gc.enable()
        run()
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:  # noqa: BLE001 - the last frame of a process: what escapes is printed, nothing can go on
        traceback.print_exc()
    finally:
        _finish(code)


def _finish(code: int) -> NoReturn:
    try:
        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as multiprocessing does for its children
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit alone would leave out e.g. a client's last flush
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    sys.stderr.write(f"{end.code}\n")
    return 1


def _end_with_parent(parent: int, *, name: str) -> None:
    """Have the kernel send SIGTERM when the parent dies, however it dies (Linux; elsewhere it must stop us itself)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        libc.prctl(PR_SET_NAME, f"cf-{name}".encode()[:15], 0, 0, 0)
    if os.getppid() != parent:  # it died between the fork and the call above
        os._exit(1)


def _write_to(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_ROTATES_AT:
        log.replace(log.with_name(f"{log.name}.1"))
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.close(nothing)
