"""The names inside a run folder, and finding runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remctl.errors import MachineError, UserError
from remctl.runs.layout import RunFolder, find_runs, run_path


def make_run(path: Path) -> RunFolder:
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.config.write_text("{}")
    return run


def test_names_are_those_the_readers_rely_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = {
        "config": "config.yaml",
        "provenance": "provenance.json",
        "metrics": "metrics.jsonl",
        "episodes": "episodes.jsonl",
        "checkpoints": "checkpoints",
        "replay": "replay",
        "media": "media",
        "result": "result.json",
        "lock": "lock",
        "log": "train.log",
    }
    assert {attribute: getattr(run, attribute) for attribute in names} == {
        attribute: tmp_path / name for attribute, name in names.items()
    }
    assert list(tmp_path.iterdir()) == []


def test_run_path() -> None:
    assert run_path(Path("out"), "main", "no_pop", "Pong", 3) == Path("out/main/no_pop/Pong/seed_3")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", ".hidden", "a\nb", "a\0b"])
def test_a_name_cannot_leave_its_place(name: str) -> None:
    for names in ((name, "v", "g"), ("e", name, "g"), ("e", "v", name)):
        with pytest.raises(UserError, match="cannot name a folder"):
            run_path(Path("out"), *names, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UserError, match="seed is -1"):
        run_path(Path("out"), "e", "v", "g", -1)


def test_find_runs_sorts_and_looks_into_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(run_path(tmp_path, "e", variant, "Pong", 0)) for variant in ("b", "d", "a", "c")]
    make_run(runs[0].path / "media" / "copy")
    (tmp_path / "e" / "empty").mkdir()
    expected = sorted(runs, key=lambda run: run.path)
    assert find_runs(tmp_path) == expected
    with monkeypatch.context() as patch:
        real = os.walk
        patch.setattr(os, "walk", lambda *args, **options: reversed(list(real(*args, **options))))
        assert [run for run in find_runs(tmp_path) if run in expected] == expected
    assert find_runs(runs[0].path) == [runs[0]]


def test_find_runs_knows_one_that_lost_its_config(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / "e" / "v" / "Pong" / "seed_0"), RunFolder(tmp_path / "moved")]
    for run in runs:
        run.path.mkdir(parents=True)
        run.result.write_text("{}")
    assert find_runs(tmp_path) == runs[:1]  # elsewhere any file may be called that
    runs[1].provenance.write_text("[]")
    assert find_runs(tmp_path) == runs


def test_find_runs_of_nothing(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "gone") == []


def test_find_runs_names_what_it_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a" / "run")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MachineError, match="permission denied while reading .*/a"):
        find_runs(tmp_path)


def test_done_means_result(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_done
    run.result.write_text("{}")
    assert run.is_done
