"""What `remctl ablate` shows before anything starts, the shortest spec, and `--set`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from remctl.errors import UserError
from remctl.runs.code import this_code
from remctl.runs.files import read_json
from remctl.shipped import find
from remctl.sweep.profile import read_profile
from remctl.sweep.records import new_submission
from remctl.sweep.slurm import script, submit
from remctl.sweep.spec import read_spec, wanted_runs
from tests.cli.conftest import Outcome
from tests.sweep.support import attempt, record, ref, tiny_spec, write_spec

Cli = Callable[..., Outcome]
SHORT = "variants: [rem, no_pop]\ngames: [Catch]\nseeds: 2\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where there is no SLURM."""
    this_code()  # asked of git while it can be, and kept
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "mine.yaml").write_text(SHORT)
    return tmp_path


def handed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    paths: list[str] = []
    monkeypatch.setattr(
        "remctl.sweep.local.start_queue", lambda s, out: paths.extend(r.path for task in s.tasks for r in task)
    )
    return paths


def test_three_lines_are_a_spec(here: Path) -> None:
    spec = read_spec(here / "mine.yaml")
    assert (spec.name, spec.control, spec.preset, spec.question) == ("mine", "rem", "paper", "")
    longer = here / "longer.yaml"
    longer.write_text(f"{SHORT}name: mine\ncontrol: rem\npreset: paper\nquestion: Why?\n")
    assert [run.config_hash for run in wanted_runs(spec)] == [run.config_hash for run in wanted_runs(read_spec(longer))]
    hidden = here / ".hidden.yaml"
    hidden.write_text(SHORT)
    with pytest.raises(UserError, match="'.hidden' cannot name a folder"):
        read_spec(hidden)


def test_a_short_spec_is_shown_and_recorded_without_a_question(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("ablate", "mine.yaml", "--dry-run").out.startswith("mine\n")
    handed(monkeypatch)
    assert cli("ablate", "mine.yaml", "--set", "training.num_epochs=60", "--yes").status == 0
    assert cli("status", "mine").out.startswith("mine\n")


def test_a_dry_run_says_what_each_variant_changes(cli: Cli, here: Path) -> None:
    (here / "mine.yaml").write_text(
        SHORT.replace("no_pop]", "no_pop, {name: both, base: no_pop, overrides: {imagination.horizon: 5}}]")
    )
    shown = cli("ablate", "mine.yaml", "--dry-run", "--set", "training.num_epochs=60").out
    text = " ".join(shown.split())
    assert "rem the control: preset paper" in text
    assert "both world_model.observation_prediction: pop -> token_by_token imagination.horizon: 10 -> 5" in text
    assert "all variants: training.num_epochs=60" in text
    plan = json.loads(cli("ablate", "mine.yaml", "--dry-run", "--json").out)
    assert plan["variants"]["rem"] == {}
    assert plan["variants"]["no_pop"] == {"world_model.observation_prediction": ["pop", "token_by_token"]}


@pytest.mark.parametrize(
    ("control", "changes"),
    [
        ("{name: rem, overrides: {collection.epsilon: 0.5}}", {"collection.epsilon": [0.01, 0.5]}),
        (
            "{name: mine, base: no_pop, overrides: {imagination.horizon: 5}}",
            {"world_model.observation_prediction": ["pop", "token_by_token"], "imagination.horizon": [10, 5]},
        ),
    ],
)
def test_a_dry_run_says_what_the_control_itself_changes(
    control: str, changes: dict[str, list[object]], cli: Cli, here: Path
) -> None:
    name = control[1:].partition(",")[0].removeprefix("name: ")
    (here / "mine.yaml").write_text(
        SHORT.replace("[rem, no_pop]", f"[{control}, no_action_inputs]") + f"control: {name}\n"
    )
    plan = json.loads(cli("ablate", "mine.yaml", "--dry-run", "--json").out)
    assert plan["control"] == {"name": name, "preset": "paper", "changes": changes}
    assert plan["variants"][name] == {}
    text = " ".join(cli("ablate", "mine.yaml", "--dry-run", "--set", "training.num_epochs=60").out.split())
    lines = " ".join(f"{key}: {old} -> {new}" for key, (old, new) in changes.items())
    assert f"{name} the control: preset paper, but {lines}" in text
    assert "all variants: training.num_epochs=60" in text


def test_a_control_that_makes_the_rest_possible_is_shown_too(cli: Cli, here: Path) -> None:
    own = "{name: rem, overrides: {world_model.context_blocks: 1}}"
    (here / "mine.yaml").write_text(
        SHORT.replace(
            "[rem, no_pop]",
            f"[{own}, {{name: b, overrides: {{world_model.context_blocks: 1, controller.discount: 0.9}}}}]",
        )
        + "overrides: {imagination.burn_in_frames: 0}\n"
    )
    plan = json.loads(cli("ablate", "mine.yaml", "--dry-run", "--json").out)
    assert plan["control"]["changes"] == {"world_model.context_blocks": ["?", 1]}


def test_a_dry_run_for_slurm_needs_none(cli: Cli, here: Path) -> None:
    got = cli("ablate", "mine.yaml", "--dry-run", "--executor", "slurm")
    assert (got.status, "executor slurm; nothing was started" in got.out) == (0, True)
    _, runs = tiny_spec(here)
    record(here / "runs", runs[:1])  # handed to SLURM from another machine
    got = cli("ablate", str(write_spec(here)), "--dry-run", "--executor", "slurm", "--json")
    assert [a["action"] for a in json.loads(got.out)["actions"]] == ["wait", "run", "run", "run"]
    assert "note: scontrol is not on the PATH" in got.err
    assert cli("ablate", "mine.yaml", "--executor", "slurm").err.startswith("remctl: --executor slurm: no sbatch here")


def test_the_script_is_the_one_that_would_be_submitted(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(here.rglob("*"))
    shown = cli("ablate", "mine.yaml", "--show-script", "--profile", "cpu", "--runs-per-gpu", "2")
    assert (shown.status, shown.err) == (0, "mine: 4 to run; nothing was started\n")
    assert sorted(here.rglob("*")) == before
    assert "#SBATCH --array=0-1%2" in shown.out

    bin_ = here / "bin"
    bin_.mkdir()
    for name, text in {
        "sbatch": f'/bin/cat "$2" > {here}/submitted; echo 7',  # sbatch --parsable SCRIPT
        "srun": "exit 0",
        "scontrol": "echo MaxArraySize = 1001",
    }.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_))
    runs = wanted_runs(read_spec(here / "mine.yaml"))
    profile = read_profile(find("slurm", "cpu"))
    for count in (1, 4):  # a plain job, and an array
        made = new_submission(
            here / "runs" / "mine", "slurm", "here", [(ref(run, "mine"),) for run in runs[:count]], {}
        )
        made.path.mkdir(parents=True)
        submit(made, profile, here / "runs")
        assert script(made, profile).split() == (here / "submitted").read_text().split()
        (made.path / "submission.json").unlink()


def test_a_script_of_nothing_is_empty(cli: Cli, here: Path) -> None:
    _, runs = tiny_spec(here)
    record(here / "runs", runs)
    got = cli("ablate", str(write_spec(here)), "--show-script")
    assert (got.status, got.out) == (0, "")
    assert "4 to wait; nothing was started" in got.err


def test_set_changes_every_variant_and_is_kept_for_retry(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = handed(monkeypatch)
    spec, out = write_spec(here), here / "runs"
    settings = ("--set", "imagination.horizon=4", "--set", "world_model.num_layers=2", "--name", "deep")
    got = cli("ablate", str(spec), *settings)
    assert got.status == 0, got.err
    asked = wanted_runs(read_spec(spec, settings[1:4:2], "deep"))
    assert {(run.config.imagination.horizon, run.config.world_model.num_layers) for run in asked} == {(4, 2)}
    kept = read_json(out / "deep" / "experiment.json")
    assert [run["config_hash"] for run in kept["runs"]] == [run.config_hash for run in asked]
    assert sorted(paths) == sorted(f"deep/{run.variant}/Catch/seed_{run.seed}" for run in asked)
    made = record(out, asked[:1], executor="local", experiment="deep")
    folder = out / "deep/rem/Catch/seed_0"
    folder.mkdir(parents=True)
    monkeypatch.setattr("tests.sweep.support.ref", lambda run: ref(run, "deep"))
    attempt(out, asked[0], "start", made)
    attempt(out, asked[0], "end", made, outcome="failed", error="x")
    paths.clear()
    got = cli("retry", "deep", "rem/Catch/seed_0")
    assert (got.status, paths) == (0, ["deep/rem/Catch/seed_0"]), got.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--set", "imagination.horizn=3"), "--set: unknown key 'imagination.horizn': did you mean imagination.horizon"),
        (("--set", "imagination.horizon"), "write key=value"),
        (("--set", "foo=1", "--set", "bar=2"), "unknown key 'foo': see `remctl config show`; --set: unknown key 'bar'"),
        (("--set", "seed=3"), "--set seed: not an override: set it with 'seeds' of the spec"),
        (("--set", "world_model=3"), "world_model is a section: set one of its keys"),
        (("--set", "world_model.num_layers=0"), "world_model.num_layers: given 0; allowed: greater"),
        (("--set", "world_model.observation_prediction=pop"), "variant 'no_pop' sets it: leave it out, or change mine.yaml"),
        (("--set", "environment.frame_skip=2"), "environment.frame_skip has no effect here"),
        (("--name", "a/b"), "--name: 'a/b' cannot name a folder"),
        (("--show-script", "--json"), "--show-script and --json: choose one of them"),
        (("--show-script", "--executor", "local"), "--show-script and --executor local: choose one of them"),
        (("--show-script", "--profile", "cpuu"), "no SLURM profile 'cpuu': did you mean cpu?"),
        (("--dry-run", "--wait"), "--dry-run and --wait: choose one of them"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line(args: tuple[str, ...], says: str, cli: Cli, here: Path) -> None:
    got = cli("ablate", "mine.yaml", *args)
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert says in got.err
    assert not (here / "runs").exists()


def test_a_key_of_the_grid_is_not_set(cli: Cli, here: Path) -> None:
    (here / "mine.yaml").write_text(SHORT + "grid: {imagination.horizon: [5, 10]}\n")
    assert "the grid sets it" in cli("ablate", "mine.yaml", "--set", "imagination.horizon=4", "--dry-run").err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "varients: [rem]\ngame: [Pong]\n",
            ["'varients' (line 1): did you mean variants?", "'game' (line 2): did you", "key 'seeds'"],
        ),
        ("variants: [rem, no_pop]\n", ["missing key 'games': add it, for example 'games: abl", "missing key 'seeds'"]),
        ("", ["allowed: the keys variants, games, seeds"]),
    ],
)  # fmt: skip
def test_all_missing_and_unknown_keys_are_named_at_once(text: str, says: list[str], cli: Cli, here: Path) -> None:
    (here / "mine.yaml").write_text(text)
    got = cli("ablate", "mine.yaml", "--dry-run")
    assert (got.status, got.err.count("\n")) == (2, 1)
    assert all(part in got.err for part in says), got.err


def test_a_file_of_keys_names_all_unknown_ones(cli: Cli, here: Path) -> None:
    (here / "keys.yaml").write_text("foo: 1\nworld_model: {num_layer: 2, embed_dim: 8}\nbar.baz: 2\n")
    got = cli("config", "show", "--config", "keys.yaml")
    assert len(re.findall("unknown key", got.err)) == 3
    assert "'world_model.num_layer': did you mean world_model.num_layers" in got.err
    (here / "keys.yaml").write_text("".join(f"foo{i}: 1\n" for i in range(100)))
    assert "; and 92 more" in cli("config", "show", "--config", "keys.yaml").err
