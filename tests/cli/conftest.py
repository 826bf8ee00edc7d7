"""The command line in-process, on a terminal of 80 columns that shows no colour."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

import remctl
from remctl.cli import run


class Outcome(NamedTuple):
    """What one command line left behind."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH", "LINES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", None)  # read from the environment when it was imported
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", None)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run one command line."""

    def call(*args: str) -> Outcome:
        status = run(args)
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In the place of `remctl.runner`: notes every call; `raises` and `returns` say what a call does."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    fake = SimpleNamespace(calls=calls, raises=None, returns={})

    def verb(name: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, args, kwargs))
            if fake.raises is not None:
                raise fake.raises
            return fake.returns

        return called

    module = ModuleType("remctl.runner")
    for name in ("train", "evaluate", "inspect"):
        setattr(module, name, verb(name))
    monkeypatch.setitem(sys.modules, "remctl.runner", module)
    monkeypatch.setattr(remctl, "runner", module, raising=False)
    return fake
