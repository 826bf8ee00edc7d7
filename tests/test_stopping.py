"""Signals: heard between steps, and in the middle of one that takes long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from remctl.errors import Interrupted
from remctl.stopping import StopFlag

# One operation that runs no Python for a minute, as a training step may; the lock of the interpreter is free meanwhile.
STEP = """
import hashlib
from remctl.stopping import StopFlag
with StopFlag(grace_s={grace_s}).listening() as stop{finishing}:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)
    print("not stopped")
"""


def child(grace_s: float = 0.3, finishing: str = "") -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", STEP.format(grace_s=grace_s, finishing=finishing)], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def left(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_in_the_middle_of_a_long_step_ends_the_process_in_time(signum: signal.Signals) -> None:
    process = child()
    process.send_signal(signum)
    assert left(process) == (
        128 + signum,
        "",
        f"remctl: stopped by {signum.name} in the middle of a step; run the same command again\n",
    )


def test_a_second_ctrl_c_does_not_wait() -> None:
    process = child(grace_s=3600)
    for _ in range(100):  # two of them at once would be one
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    assert left(process)[0] == 130


@pytest.mark.parametrize("stderr", ["closed", "unread"])
def test_a_process_whose_stderr_is_gone_ends_too(stderr: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = STEP.format(grace_s=0.1, finishing="")
    command = [sys.executable, "-c", f"import os; os.close(2)\n{code}" if stderr == "closed" else code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, text=True) as process:
        os.close(writing)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def test_what_is_being_written_is_waited_for() -> None:
    process = child(grace_s=0.1, finishing=", stop.finishing()")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    process.send_signal(signal.SIGINT)  # the second one does not wait
    assert left(process)[0] == 128 + signal.SIGTERM


def test_between_steps_the_loop_leaves_by_itself_and_nothing_is_left_behind() -> None:
    threads, handlers = threading.active_count(), [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with StopFlag().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.signum == signal.SIGTERM
    assert threading.active_count() == threads
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert (len(os.listdir("/proc/self/fd")) if files else 0) == files


def test_what_is_not_asked_to_leave_stays() -> None:
    code = """
import signal, time
from remctl.stopping import StopFlag
signal.signal(signal.SIGWINCH, lambda signum, frame: None)  # only handled signals are written to the pipe
with StopFlag(grace_s=0.01).listening() as stop:
    signal.raise_signal(signal.SIGWINCH)
    time.sleep(0.5)
    stop.check()
print("stayed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "stayed\n")
