"""What a user sees during a run: pace and time left by given times, lines while one step takes long, bars on a terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

import pytest

from remctl.errors import Interrupted
from remctl.pace import Left, Loop, Pace, line, span
from remctl.progress import LINE_EVERY_S, Reporter, StopFlag, alive

DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (.*)")
OFTEN_S = 0.02


def loop(name: str, total: int, begin: float, *advances: tuple[int, float], skip_first: bool = True) -> Loop:
    made = Loop(name, total, begin, skip_first)
    for done, now in advances:
        made.advance(done, now)
    return made


# --- the pace


def test_durations_are_short() -> None:
    assert [span(s) for s in (0, 9.6, 75, 3_675, 200_000)] == ["0:00", "0:10", "1:15", "1:01:15", "2 d 7 h"]


def test_a_first_step_that_compiles_is_no_part_of_the_pace() -> None:
    compiled = loop("world model", 200, 10.0, (1, 176.0))
    assert compiled.step_s is None
    compiled.advance(2, 176.5)
    compiled.advance(3, 177.0)
    assert compiled.step_s == 0.5
    assert compiled.left(None) == 0.5 * 197
    counted = loop("episodes", 10, 10.0, (2, 14.0), skip_first=False)
    assert counted.step_s == 2.0
    counted.end(20.0)  # the diagnosis after the last episode
    assert counted.step_s == 5.0


@pytest.mark.parametrize(("step_s", "rate"), [(0.05, "20.0/s"), (21.3, "21.3 s each")])
def test_a_rate_is_steps_per_second_or_seconds_per_step(step_s: float, rate: str) -> None:
    assert loop("x", 9, 0.0, (1, 5.0), (2, 5.0 + step_s)).rate == rate


def test_what_is_left_is_at_least_what_has_a_pace_until_all_has() -> None:
    pace = Pace({"collect": 100, "controller": 50, "encode": 0}, {"collect": 0.5})
    assert pace.left() == Left(50.0, complete=False)
    assert pace.unknown() == ["controller"]
    pace.guessed["controller"] = 2.0
    assert pace.left() == Left(150.0, complete=True)
    pace.measured["controller"] = 1.0  # what was measured is better than what was guessed
    assert pace.left() == Left(100.0, complete=True)
    assert Pace().left() is None
    assert [Left(75, c).words for c in (True, False)] == ["about 1:15", "at least 1:15"]
    assert [Left(75, c).sign for c in (True, False)] == ["~1:15", ">1:15"]


def test_steps_under_way_count_at_their_own_pace_and_a_loop_that_is_over_leaves_its_own() -> None:
    pace = Pace({"collect": 100, "warm-up": 60}, {"collect": 1.0, "warm-up": 1.0})
    running = loop("warm-up", 60, 0.0, (1, 9.0), (11, 29.0))  # two seconds a step
    assert pace.left([running]) == Left(100 + 2 * 49, complete=True)
    pace.finished(running)  # before its end, as a warm-up may be
    assert pace.left() == Left(100.0, complete=True)
    assert pace.measured["warm-up"] == 2.0


def test_a_line_says_phase_step_rate_and_both_times_left() -> None:
    pace = Pace({"world model": 520, "controller": 10}, {"world model": 9.0})
    under_way = [Loop("world model", None, 0.0), loop("world model", 520, 0.0, (1, 3.0), (121, 33.0))]
    said = line("epoch 1/4", under_way, pace, 34.0)
    assert said == "epoch 1/4  world model 121/520  4.0/s  1:40 left  run: at least 1:40 left"
    assert (
        line("epoch 1/4", under_way[:1], pace, 61.0)
        == "epoch 1/4  world model  1:01 so far  run: at least 1:18:00 left"
    )
    assert line("", [Loop("episodes", 100, 0.0)], Pace(), 5.0) == "episodes 0/100  0:05 so far"


# --- lines


def lines_of(text: str) -> list[str]:
    """Without their dates; everything is a whole line with one."""
    matches = [DATED.fullmatch(each) for each in text.splitlines()]
    assert all(matches), text
    return [match[1] for match in matches if match]


def busy_for(seconds: float) -> None:
    """Python that never gives the interpreter up by itself."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def until(condition: Callable[[], bool], work: Callable[[float], None] = time.sleep) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        work(10 * OFTEN_S)


@pytest.mark.parametrize("work", [time.sleep, busy_for])
def test_lines_come_while_one_step_takes_long_and_none_after_the_end(work, tmp_path: Path, capsys) -> None:
    log = tmp_path / "train.log"
    with Reporter(StopFlag(), log, every_s=OFTEN_S) as reporter:
        reporter.epoch_bar(4, 1)
        reporter.pace.work = {"controller": 2}
        for step in reporter.track(range(2), "controller", 2):
            until(lambda: log.exists() and log.read_text().count(f"controller {step}/2") >= 3, work)  # noqa: B023
    out = capsys.readouterr().out
    assert out == log.read_text()
    said = [each for each in lines_of(out) if each != "starting"]
    assert re.fullmatch(r"epoch 2/4  controller 0/2  \d:\d\d so far", said[0])
    assert re.fullmatch(r"epoch 2/4  controller 1/2  \d:\d\d so far", said[-1])
    time.sleep(5 * OFTEN_S)
    assert log.read_text() == out
    assert not [t for t in threading.enumerate() if t.name == "signs of life"]


def test_other_lines_put_the_next_one_off(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    with Reporter(StopFlag(), log, quiet=True, every_s=2.0) as reporter:
        for number in range(25):
            reporter.log(str(number))
            time.sleep(0.1)
    assert lines_of(log.read_text()) == [str(number) for number in range(25)]


def test_a_quiet_run_writes_them_to_its_log_only(tmp_path: Path, capsys) -> None:
    with Reporter(StopFlag(), tmp_path / "train.log", quiet=True, every_s=OFTEN_S):
        until((tmp_path / "train.log").exists)
    assert set(lines_of((tmp_path / "train.log").read_text())) == {"starting"}
    assert capsys.readouterr() == ("", "")


def test_lines_are_whole(tmp_path: Path, capsys) -> None:
    with Reporter(StopFlag(), tmp_path / "train.log", every_s=1e-5) as reporter, reporter.doing("x" * 200):
        for _ in range(1500):
            reporter.log("y" * 200)
    out = capsys.readouterr().out
    assert out == (tmp_path / "train.log").read_text()  # in the same order
    said = lines_of(out)
    assert said.count("y" * 200) == 1500
    assert {each.split()[0] for each in said} == {"starting", "x" * 200, "y" * 200}


def test_a_command_with_a_result_on_stdout_says_them_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(Reporter.__init__.__kwdefaults__, "every_s", OFTEN_S)
    out, err = "", ""
    with alive("computing intervals"):
        while "computing" not in err:
            time.sleep(OFTEN_S)
            more_out, more_err = capsys.readouterr()
            out, err = out + more_out, err + more_err
    assert out == ""
    assert re.fullmatch(r"computing intervals  \d:\d\d so far", lines_of(err)[-1])


def test_30_seconds_are_kept_on_a_machine_that_wakes_a_thread_late() -> None:
    assert LINE_EVERY_S <= 25


@contextmanager
def full_pipe() -> Iterator[tuple[int, TextIO]]:
    """Both ends of a pipe that is full and not read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with os.fdopen(reading), os.fdopen(writing, "w") as stdout:
        yield reading, stdout


def test_a_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    with full_pipe() as (reading, stdout), redirect_stdout(stdout), Reporter(StopFlag(), log, every_s=OFTEN_S):
        try:
            until(lambda: log.exists() and len(lines_of(log.read_text())) >= 3)
        finally:
            os.read(reading, 1 << 16)  # a line that did wait is not waited for


def test_a_reader_that_has_left_is_found_by_the_main_thread() -> None:
    code = (
        "import sys, time; from remctl.progress import Reporter, StopFlag\n"
        f"with Reporter(StopFlag(), every_s={OFTEN_S}) as reporter:\n"
        "    reporter.log('first'); sys.stdin.readline(); time.sleep(0.3); reporter.log('second')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        while not child.stdout.readline().endswith(b"first\n"):
            pass
        child.stdout.close()
        child.stdin.write(b"\n")
        child.stdin.flush()
        errors = child.stderr.read()
        assert child.wait(60) == 1
    assert b"BrokenPipeError" in errors
    assert b"Exception in thread" not in errors


def test_a_signal_ends_a_loop_between_two_steps_with_the_thread_at_work(tmp_path: Path) -> None:
    with StopFlag().listening() as stop, Reporter(stop, tmp_path / "log", quiet=True, every_s=1e-4) as reporter:
        steps = reporter.track(range(9), "x", 9)
        assert next(steps) == 0
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            next(steps)
        assert not reporter.sign_of_life()


# --- a terminal

SHOWN = """
import time
from remctl.progress import Reporter, StopFlag
with Reporter(StopFlag(), every_s=0.3) as reporter:
    reporter.epoch_bar(600, 12)
    reporter.pace.work = {"tokenizer warm-up": 10, "collect": 60}
    reporter.pace.measured["collect"] = 100.0
    with reporter.doing("tokenizer"):
        for _ in reporter.track(range(10), "tokenizer warm-up", 10):
            time.sleep(0.1)
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_a_terminal(columns: int, term: str = "xterm") -> str:
    """What is written to a terminal of so many columns, without what moves the cursor and colours."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = subprocess.Popen([sys.executable, "-c", SHOWN], stdout=follower, stderr=follower, env=env | {"TERM": term})
    os.close(follower)
    seen = bytearray()
    try:
        while data := os.read(leader, 4096):
            seen += data
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(leader)
    assert child.wait(30) == 0
    return CONTROL.sub("", seen.decode())


@pytest.mark.parametrize("columns", [40, 80])
def test_bars_show_both_times_left_and_fit(columns: int) -> None:
    rows = re.split(r"[\r\n]+", on_a_terminal(columns))
    assert max(map(len, rows)) <= columns
    assert [row for row in rows if re.fullmatch(r"epochs .* 12/600 .*~1:4\d:\d\d *", row)], rows
    assert [row for row in rows if re.fullmatch(r"tokenizer warm-up .*\d/10 .*\d:\d\d *", row)], rows
    assert any("/s" in row for row in rows) == (columns == 80)
    assert "…" not in "".join(rows)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    said = lines_of(on_a_terminal(80, "dumb"))
    assert [each for each in said if re.match(r"epoch 13/600  tokenizer warm-up \d/10  ", each)], said


def test_a_time_left_of_which_nothing_is_known_is_not_said() -> None:
    pace = Pace(work={"tokenizer": 100, "world model": 500})
    running = Loop("tokenizer", 100, now=0.0)
    assert pace.left([running]) is None
    assert line("epoch 1/4", [running], pace, 5.0) == "epoch 1/4  tokenizer 0/100  0:05 so far"
    pace.guessed = {"tokenizer": 1.0}
    assert pace.left([running]) == Left(100.0, complete=False)
    pace.guessed = {"tokenizer": 0.0, "world model": 0.0}
    assert pace.left([running]) == Left(0.0, complete=True)
