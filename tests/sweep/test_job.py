"""A supervisor's part: how ends are judged, what is never started, what becomes of a run that gets nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl.runs.layout import RunFolder
from remctl.sweep.job import MAX_FRUITLESS_STARTS, Pool, Slot, Supervised, last_line, outcome_of, supervised
from remctl.sweep.records import add_request, attempts
from tests.sweep.support import attempt, begin, record, tiny_spec

CPU = Slot("", "cpu", 1)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0, "done"),
        (75, "refused"),  # another process had the run
        (128 + 15, "interrupted"),
        (128 + 12, "interrupted"),
        (-15, "interrupted"),  # before it could listen
        (-9, "failed"),
        (1, "failed"),
        (70, "failed"),
    ],
)
def test_exit_statuses(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


@pytest.fixture
def run(tmp_path: Path) -> Supervised:
    """Handed over; its configuration is gone, so that a start ends at once, with an error."""
    _, runs = tiny_spec(tmp_path)
    made = record(tmp_path / "runs", runs[:1])
    for path in (made.path / "configs").iterdir():
        path.unlink()
    return supervised(made, 0, tmp_path / "runs", job="7")[0]


def test_a_start_that_fails_is_written_with_its_last_words(run: Supervised) -> None:
    assert Pool([run], [CPU]).work() == {run.ref.path: "failed"}
    start, end = attempts(run.run)
    assert (start["event"], start["job"], start["epoch"]) == ("start", "7", 0)
    assert (end["outcome"], end["status"]) == ("failed", 2)
    assert end["error"].startswith("remctl: ")
    assert last_line(run.run.path / "job.log") == end["error"]


def test_done_failed_and_cancelled_runs_are_not_started_again(run: Supervised, tmp_path: Path) -> None:
    _, runs = tiny_spec(tmp_path)
    attempt(tmp_path / "runs", runs[0], "end", run.submission, outcome="interrupted")
    assert not run.is_over
    add_request(run.run, "cancel", [run.submission.id])
    assert run.is_over
    (run.run.path / "requests.jsonl").unlink()
    attempt(tmp_path / "runs", runs[0], "end", run.submission, outcome="failed")
    assert run.is_over
    assert Pool([run], [CPU]).work() == {}
    begin(tmp_path / "runs", runs[0], done=True)
    assert run.is_over


def test_a_run_that_never_completes_an_epoch_is_given_up(run: Supervised, tmp_path: Path) -> None:
    _, runs = tiny_spec(tmp_path)
    begin(tmp_path / "runs", runs[0], epoch=2)
    for epoch in (1, *[2] * MAX_FRUITLESS_STARTS):
        attempt(tmp_path / "runs", runs[0], "start", run.submission, epoch=epoch)
        attempt(tmp_path / "runs", runs[0], "end", run.submission, outcome="interrupted")
    assert Pool([run], [CPU]).work() == {run.ref.path: "failed"}
    assert "without one more epoch: give it more time" in attempts(run.run)[-1]["error"]


def test_a_folder_that_is_gone_does_not_stop_the_others(run: Supervised, tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny" / "rem").write_text("a file in the place of the folder")
    assert Pool([run], [CPU]).work() == {run.ref.path: "failed"}
    assert not RunFolder(run.run.path).path.exists()
