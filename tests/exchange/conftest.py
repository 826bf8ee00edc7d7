"""Published files in small, and what becomes of them."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from remctl.cli import run
from tests.exchange.published import IRIS_SIZES, REM_SIZES
from tests.tiny import TINY, TINY_IRIS

QUICK = {"rem": ("quick", (*TINY, *REM_SIZES)), "iris": ("iris", (*TINY_IRIS, *IRIS_SIZES))}
SMALL_IRIS = (
    "tokenizer.training.start_after_epoch=0",
    "world_model.training.start_after_epoch=0",
    "tokenizer.num_groups=32",
    "tokenizer.perceptual=pixel",
    "runtime.precision=fp32",
)


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def refused(done: Outcome, *words: str) -> None:
    """It failed with one line that says what to do, after lines of the log, or on what the file has, if there are any."""
    assert done.status in (1, 2), done
    *before, line = done.err.splitlines()
    assert line.startswith("remctl: ")
    assert not any(other.startswith("remctl: ") for other in before)
    assert "internal error" not in done.err
    for word in words:
        assert word in done.err


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing durable can be written."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("remctl.runs.files.os.write", full)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run one command line."""

    def call(*args: object) -> Outcome:
        capsys.readouterr()
        status = run([str(arg) for arg in args])
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def take_in(cli: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """`remctl import` of a small file of Catch into tmp_path/published/rem/Catch/seed_0."""

    def call(file: Path, kind: str = "rem", *more: object, game: str = "Catch") -> Outcome:
        preset, sets = QUICK[kind]
        sets = (*sets, *(SMALL_IRIS if kind == "iris" else ()))
        given = [word for key in sets for word in ("--set", key)]
        out = () if "--out" in more else ("--out", tmp_path / "published/rem/Catch/seed_0")
        return cli("import", file, "--from", kind, "--game", game, "--preset", preset, *given, *out, *more)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Catch; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    sets = [word for key in TINY for word in ("--set", key)]
    line = ["train", "--game", "Catch", "--preset", "quick", *sets, "--quiet", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/usr/bin/remctl", *line])
        assert run(line) == 0
    return folder / "quick/rem/Catch/seed_0"


@pytest.fixture(scope="session")
def exported_once(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    assert run(["export", str(finished), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(exported_once, tmp_path / "bundle"))
