"""`config show --from` and `config diff`: runs, files, presets and variants of specs alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.config import config_hash, from_yaml, resolve, to_yaml
from tests.cli.conftest import Outcome

Cli = Callable[..., Outcome]
RUN = "quick/rem/Catch/seed_3"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in the usual place, a file of keys, and a spec."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / RUN
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(resolve("Catch", "quick", sets=["imagination.horizon=6"], seed=3)))
    (tmp_path / "keys.yaml").write_text("imagination: {horizon: 7}\n")
    (tmp_path / "own.yaml").write_text(
        "variants: [rem, {name: long, overrides: {imagination.horizon: 7}}]\ngames: [Pong, Gopher]\nseeds: 2\n"
    )
    return tmp_path


def changed(cli: Cli, *args: str) -> dict[str, tuple[object, object]]:
    got = cli("config", "diff", *args, "--json")
    assert got.status == 0, got.err
    return {key: (row["a"], row["b"]) for key, row in json.loads(got.out)["keys"].items()}


@pytest.mark.parametrize(
    "given", [RUN, f"runs/{RUN}", f"./runs/{RUN}/", f"runs/{RUN}/config.yaml", f"{RUN}/config.yaml"]
)
def test_a_run_shows_its_configuration(given: str, cli: Cli, here: Path) -> None:
    file = here / "runs" / RUN / "config.yaml"
    assert cli("config", "show", "--from", given).out == file.read_text()
    assert json.loads(cli("config", "show", "--from", given, "--json").out)["config_hash"] == config_hash(
        from_yaml(file)
    )
    assert "imagination.horizon: 6  # paper: 10" in cli("config", "show", "--from", given, "--diff").out
    assert changed(cli, given, "quick") == {"seed": (3, 0), "imagination.horizon": (6, 7)}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("paper", "paper", {}),
        ("keys.yaml", "paper", {"imagination.horizon": (7, 10)}),
        ("paper", "keys.yaml", {"imagination.horizon": (10, 7)}),
        ("own.yaml:long", "own.yaml:rem", {"variant": ("long", "rem"), "imagination.horizon": (7, 10)}),
        ("own.yaml:long", "keys.yaml", {"variant": ("long", "rem")}),
        ("pop:no_pop", "no_pop", {}),
        (
            "remctl:pop:no_pop",
            "rem",
            {"variant": ("no_pop", "rem"), "world_model.observation_prediction": ("token_by_token", "pop")},
        ),
        (
            "horizon:rem+imagination.horizon=20",
            "paper",
            {"variant": ("rem+imagination.horizon=20", "rem"), "imagination.horizon": (20, 10)},
        ),
    ],
)
def test_any_two_are_compared(a: str, b: str, expected: dict[str, object], cli: Cli) -> None:
    assert changed(cli, a, b) == expected


def test_the_game_is_the_one_that_a_side_has(cli: Cli) -> None:
    assert "game" not in changed(cli, "quick", RUN)
    assert "environment.frame_skip" not in changed(cli, "own.yaml:rem", "paper", "--game", "Gopher")
    assert changed(cli, "own.yaml:rem", RUN)["game"] == ("Pong", "Catch")


def test_the_table_marks_what_makes_no_other_run(cli: Cli) -> None:
    got = cli("config", "diff", "own.yaml:long", "keys.yaml").out
    assert "A: own.yaml:long (Pong, seed 0, config " in got
    assert "variant *" in got
    assert got.endswith("1 key differs (* makes no difference to a result): the same run\n")
    assert cli("config", "diff", "paper", "no_pop").out.endswith("): different runs\n")
    assert cli("config", "diff", "paper", "paper").out.endswith("no key differs: the same run\n")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("diff papper rem", "no configuration 'papper': did you mean paper"),
        ("diff paper nopop", "no configuration 'nopop': did you mean no_pop"),
        ("diff own.yaml:lnog paper", "unknown variant of own.yaml 'lnog': did you mean long?"),
        ("diff embedding:rem paper", "no ablation spec 'embedding': did you mean embeddings?"),
        ("diff pop paper", "pop is a spec: name one of its variants, such as pop:no_pop"),
        ("diff runs/quick paper", f"runs/quick holds 1 runs: name one, such as runs/{RUN}"),
        ("diff own.yaml paper", "own.yaml: unknown key 'variants'"),
        ("diff own.yaml:rem paper --game Catch", "unknown game of own.yaml:rem 'Catch': known: Pong, Gopher"),
        (f"diff {RUN} {RUN} --game Pong", "--game: both sides name a game already"),
        ("diff /nowhere paper", "no configuration '/nowhere': give a run's folder"),
        ("diff paper", "B"),
        ("show --from nowhere", "no configuration 'nowhere'"),
        ("show --from runs/quick", f"runs/quick holds 1 runs: name one, such as runs/{RUN}"),
        (f"show --from {RUN} --game Pong", "--from gives the whole"),
        (f"show --from {RUN} --set imagination.horizon=3", "--from gives the whole"),
    ],
)
def test_a_mistake_gets_one_line(args: str, says: str, cli: Cli) -> None:
    got = cli("config", *args.split())
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert says in got.err
