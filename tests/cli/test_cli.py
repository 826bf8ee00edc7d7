"""The verbs: help, what they call, what they print, and every kind of bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import remctl
from remctl.cli import app
from remctl.config import config_hash, from_yaml, keys, resolve, to_yaml
from remctl.config.presets import CORRECTIONS, DESCRIPTIONS
from remctl.explain import plain
from remctl.games import ABLATION_SUBSET, ATARI_100K
from remctl.runs.code import this_code
from remctl.variants import VARIANTS

HEAVY = ("torch", "numpy", "gymnasium", "ale_py", "matplotlib", "PIL", "scipy", "safetensors", "remctl.runner")
VERBS = [
    "train",
    "eval",
    "inspect",
    "doctor",
    "init",
    "ablate",
    "status",
    "cancel",
    "retry",
    "logs",
    "report",
    "import",
    "export",
    "random",
    "config show",
    "config diff",
    "config schema",
    "config explain",
    "list games",
    "list presets",
    "list variants",
    "list specs",
    "weights fetch",
    "weights status",
    "scores export",
    "bench compare",
]


def all_verbs(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from all_verbs(command, (*prefix, name))
        else:
            yield (*prefix, name)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(to_yaml(resolve("Pong")))
    return tmp_path


# --- help


@pytest.mark.parametrize(
    "line", ["--help", "train --help", "list games --json", "config show", "train --game Pong --device x"]
)
def test_imports_nothing_heavy(line: str) -> None:
    code = f"import sys; from remctl.cli import run; run({line.split()!r})"
    code += f"; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_remctl() -> None:
    command = [sys.executable, "-m", "remctl", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"remctl {this_code().version}\n"


def test_these_are_the_verbs() -> None:
    assert [" ".join(verb) for verb in all_verbs(get_command(app))] == [
        *(verb for verb in VERBS if " " not in verb),
        *(verb for verb in VERBS if " " in verb),
    ]


@pytest.mark.parametrize("verb", ["", "bench", "config", "list", "weights", "scores", *VERBS])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_every_verb_fits_80_columns(cli: Callable, verb: str, flag: str) -> None:
    done = cli(*verb.split(), flag)
    assert done.status == 0
    assert done.err == ""
    assert f"Usage: remctl {verb}".rstrip() in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert "Traceback" not in done.out


@pytest.mark.parametrize("verb", ["", "config", *VERBS])
@pytest.mark.parametrize("columns", [40, 60, 79])
def test_help_on_a_narrow_terminal_cuts_nothing(
    cli: Callable, monkeypatch: pytest.MonkeyPatch, verb: str, columns: int
) -> None:
    command = get_command(app)
    for word in verb.split():
        command = command.commands[word]
    monkeypatch.setenv("COLUMNS", str(columns))
    text = cli(*verb.split(), "--help").out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= max(columns, 44)  # an option and its negation
    assert all(option in text for parameter in command.params for option in parameter.opts if option.startswith("-"))


def test_no_arguments_is_help(cli: Callable) -> None:
    assert cli().out == cli("--help").out


def test_help_names_all_presets(cli: Callable) -> None:
    text = " ".join(cli("train", "--help").out.split())
    assert all(preset in text for preset in DESCRIPTIONS)


def test_version(cli: Callable) -> None:
    assert cli("--version") == (0, f"remctl {this_code().version}\n", "")


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("remctl train --game Boxin", ["Boxing"]),
        ("remctl train --preset qu", ["quick"]),
        ("remctl train --variant no_p", ["no_pop"]),
        ("remctl ablate token", ["token_scaling", "tokenizer"]),
        ("remctl ablate pop --profile c", ["cpu"]),
        ("remctl report --spec pa", ["paper"]),
    ],
)
def test_shells_complete_names(cli: Callable, monkeypatch: pytest.MonkeyPatch, line: str, offers: list[str]) -> None:
    monkeypatch.setenv("_REMCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    done = cli()
    assert (done.status, done.out.split()) == (0, offers)


def test_specs_are_listed_and_copied(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = json.loads(cli("list", "specs", "--json").out)
    assert {row["kind"] for row in listed} == {"ablation", "report", "profile"}
    (pop,) = (row for row in listed if row["spec"] == "pop")
    assert (pop["runs"], pop["from"], pop["question"][-1]) == (80, "remctl", "?")
    assert "files written into ablations/, reports/ and slurm/ of" in cli("init").out
    Path("ablations/pop.yaml").write_text("name: [")
    assert (
        "kept, because they differ from the shipped ones: ablations/pop.yaml (--overwrite replaces them)"
        in cli("init").out
    )
    shown = cli("list", "specs")
    assert shown.status == 0
    assert "unreadable: ablations/pop.yaml" in " ".join(shown.out.split())


@pytest.mark.parametrize(
    "line", ["list games", "list specs", "list variants", "ablate paper --dry-run --executor local"]
)
def test_a_narrow_terminal_cuts_nothing(cli: Callable, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.delenv("COLUMNS")
    wide = cli(*line.split()).out
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli(*line.split()).out
    assert "ablate" in line or max(map(len, narrow.splitlines())) <= 40
    body = Counter(c for line in wide.splitlines()[2:] for c in line if c not in " ─")
    assert Counter(narrow) >= body  # however its lines are broken


GRID = """
name: sizes
question: Does size matter?
control: rem+imagination.horizon=5+world_model.num_layers=9
variants: [rem, no_pop]
games: [Catch, ChopperCommand]
seeds: 2
preset: paper
grid: {imagination.horizon: [5, 10], world_model.num_layers: [9, 10]}
"""


@pytest.mark.parametrize("columns", [None, 30, 40, 80, 200])
def test_no_two_runs_look_the_same(
    cli: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: int | None
) -> None:
    (tmp_path / "a.yaml").write_text(GRID)
    line = ("ablate", str(tmp_path / "a.yaml"), "--dry-run", "--executor", "local")
    runs = json.loads(cli(*line, "--json").out)["actions"]
    monkeypatch.delenv("COLUMNS")
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    text = cli(*line).out
    rows = re.split(r"^run", text, flags=re.MULTILINE)[1:]
    assert len({re.sub(r"\s", "", row) for row in rows}) == len(runs) == 32
    for row, run in zip(rows, runs, strict=True):
        if columns in (None, 200):
            cells = (run["variant"], run["game"], str(run["seed"]), run["reason"])
            assert row.split("\n")[0].split() == [word for cell in cells for word in cell.split()]
        elif columns == 80:  # folded within the columns
            assert re.match(rf" +{run['variant'][:4]}.* {run['game']} +{run['seed']} ", row)
        else:
            name = re.sub(r"\+\w+\.", "+", run["variant"])  # imagination.horizon=5 -> horizon=5
            cells = ("variant", name, "game", run["game"], "seed", str(run["seed"]), "reason", run["reason"])
            assert re.sub(r"\s", "", row).startswith(re.sub(r"\s", "", "".join(cells)))
    table = text.splitlines()[1:-1]
    assert columns is None or max(map(len, table)) <= columns


@pytest.mark.parametrize("line", ["--help", "list specs", "config explain world_model.decay"])
def test_no_locale_no_home_and_an_empty_folder(line: str, tmp_path: Path) -> None:
    bare = {"PATH": "/nowhere", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    bare |= {"PYTHONPATH": str(Path(remctl.__file__).parents[1]), "HOME": "/nonexistent"}
    command = [sys.executable, "-m", "remctl", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=bare, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


# --- what the verbs call


def test_train_hands_everything_on(cli: Callable, runner: SimpleNamespace, tmp_path: Path) -> None:
    done = cli(
        *[
            "train",
            "--game",
            "Catch",
            "--preset",
            "quick",
            "--variant",
            "no_pop",
            "--set",
            "imagination.horizon=8",
            "--seed",
            "3",
        ],
        *f"--device cpu --out {tmp_path} --name first --quiet".split(),
    )
    assert done == (0, "", "")
    ((name, (config,), given),) = runner.calls
    assert name == "train"
    assert config == resolve("Catch", "quick", "no_pop", sets=["imagination.horizon=8"], seed=3)
    assert given == {"out": tmp_path, "experiment": "first", "device": "cpu", "command": sys.argv, "quiet": True}


def test_train_defaults(cli: Callable, runner: SimpleNamespace) -> None:
    assert cli("train", "--game", "Pong").status == 0
    ((_, (config,), given),) = runner.calls
    assert config == resolve("Pong")
    assert (given["out"], given["experiment"], given["device"], given["quiet"]) == (
        Path("runs"),
        "paper",
        "auto",
        False,
    )
    cli("train", "--game", "Pong", "--preset", "corrected")
    assert runner.calls[-1][2]["experiment"] == "corrected"


def test_train_with_a_file(cli: Callable, runner: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("world_model: {num_layers: 2}\n")
    assert cli("train", "--game", "Pong", "--config", str(file), "--set", "world_model.dropout=0").status == 0
    assert runner.calls[0][1][0] == resolve("Pong", sets=["world_model.num_layers=2", "world_model.dropout=0"])


def test_eval(cli: Callable, runner: SimpleNamespace, run_folder: Path) -> None:
    runner.returns = {"score": 12.5, "returns": [1.0, 2.0, 3.0, 4.0, float("nan")], "game": "[bold]Pong", "seed": 0}
    done = cli("eval", str(run_folder), "--episodes", "5", "--seed", "9", "--device", "cuda:1")
    assert done.status == 0
    assert runner.calls == [("evaluate", (run_folder, 5, "cuda:1", 9), {})]
    assert "score    12.5\n" in done.out
    assert "[bold]Pong" in done.out
    assert json.loads(cli("eval", str(run_folder), "--json").out)["returns"] == [1.0, 2.0, 3.0, 4.0, None]
    assert runner.calls[-1][1] == (run_folder, 100, "auto", None)


def test_inspect_as_json(cli: Callable, runner: SimpleNamespace, run_folder: Path) -> None:
    runner.returns = {"diagnosis": {"tokenizer": {"ratio": 0.5}}, "figures": ["a.png"]}
    assert json.loads(cli("inspect", str(run_folder), "--json").out) == runner.returns
    assert runner.calls == [("inspect", (run_folder, "auto", None, None), {})]


def test_inspect_as_tables(cli: Callable, runner: SimpleNamespace, run_folder: Path, monkeypatch: Any) -> None:
    from rich.table import Table

    one = Table("what", "value")
    one.add_row("[red]V", "1")
    monkeypatch.setitem(sys.modules, "remctl.dream.table", SimpleNamespace(diagnosis_table=lambda d, _: [one] * len(d)))
    runner.returns = {"diagnosis": {"a": 1, "b": 2}, "figures": ["media/a.png"]}
    done = cli("inspect", str(run_folder))
    assert done.status == 0
    assert done.out.count("[red]V") == 2
    assert done.out.endswith("media/a.png\n")


def test_weights(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path))
    done = cli("weights", "status")
    assert done.status == 1
    assert "missing" in done.out
    assert "remctl weights fetch" in done.out
    monkeypatch.setattr("remctl.weights.fetch_lpips", lambda: print("fetched"))
    assert cli("weights", "fetch") == (0, "fetched\n", "")


# --- config and list


@pytest.mark.parametrize(
    "line", ["", "--game Catch --preset quick --variant no_pop --seed 4", "--game Freeway --preset corrected"]
)
def test_config_show_reads_back_to_the_same_hash(cli: Callable, tmp_path: Path, line: str) -> None:
    done = cli("config", "show", *line.split(), "--set", "world_model.dropout=0.25")
    file = tmp_path / "config.yaml"
    file.write_text(done.out)
    config = from_yaml(file)
    assert done.out.startswith(f"# config_hash: {config_hash(config)}\n")
    assert config.world_model.dropout == 0.25
    assert (config.seed == 4) == ("--seed 4" in line)
    as_json = json.loads(cli("config", "show", *line.split(), "--set", "world_model.dropout=0.25", "--json").out)
    assert as_json == {"config_hash": config_hash(config), "config": config.model_dump(mode="json", by_alias=True)}


def test_config_show_diff_is_a_file_for_config(cli: Callable, tmp_path: Path) -> None:
    done = cli(
        *["config", "show", "--game", "Catch", "--preset", "quick", "--set", "runtime.trackers=[wandb]", "--diff"]
    )
    assert "tokenizer.grid_size: 4  # paper: 8\n" in done.out
    file = tmp_path / "mine.yaml"
    file.write_text(done.out)
    again, quick = resolve("Catch", file=file), resolve("Catch", "quick", sets=["runtime.trackers=[wandb]"])
    assert config_hash(again) == config_hash(quick)
    assert again.runtime == quick.runtime
    assert "# no key differs" in cli("config", "show", "--diff").out
    changed = json.loads(cli("config", "show", "--preset", "corrected", "--diff", "--json").out)
    assert changed["imagination.mask_after_end"] == {"value": True, "paper": False}
    assert set(changed) == set(CORRECTIONS)


def test_config_explain_every_key(cli: Callable) -> None:
    for key in keys():
        done = cli("config", "explain", key)
        assert (done.status, done.err) == (0, ""), key
        assert done.out.startswith(f"{key}\n"), key
        assert "allowed" in done.out, key


def test_list_games(cli: Callable) -> None:
    rows = json.loads(cli("list", "games", "--json").out)
    assert [row["game"] for row in rows][: len(ATARI_100K)] == list(ATARI_100K)
    assert rows[-1]["game"].startswith("gym:")
    assert all(row["source"] and row["random_source"] for row in rows)
    assert [row["game"] for row in rows if row["ablation_subset"]] == list(ABLATION_SUBSET)
    text = cli("list", "games").out
    assert re.search(r"^Pong +-20\.7 +14\.6 +human *$", text, re.MULTILINE)
    assert re.search(r"^Krull +1,598\.0 +2,665\.5 +human +yes *$", text, re.MULTILINE)
    assert re.search(r"^gym:CartPole-v1 +22\.3 +500\.0 +PPO, 100,000 steps *$", text, re.MULTILINE)


def test_list_presets_and_variants(cli: Callable) -> None:
    presets = json.loads(cli("list", "presets", "--json").out)
    assert {row["preset"]: row["description"] for row in presets} == DESCRIPTIONS
    variants = json.loads(cli("list", "variants", "--json").out)
    assert {row["variant"]: row["overrides"] for row in variants} == {n: v.overrides for n, v in VARIANTS.items()}
    text = cli("list", "variants").out
    assert all(f"{key}={plain(value)}" in text for v in VARIANTS.values() for key, value in v.overrides.items())


@pytest.mark.parametrize(
    "line", ["list games", "list presets", "list variants", "config explain world_model", "config explain seed"]
)
def test_tables_fit_80_columns(cli: Callable, line: str) -> None:
    lines = cli(*line.split()).out.splitlines()
    assert max(len(text) for text in lines) <= 80
    assert not any(text.endswith(" ") for text in lines)


# --- bad input: status 2, one line, the nearest name or the key and what is allowed

BAD = [
    ("trian", "no such command 'trian': did you mean 'train'?"),
    ("frobnicate", "choose one of train, eval, inspect, doctor, init, ablate,"),
    ("config", "choose one of show, diff, schema, explain"),
    ("config shwo", "did you mean 'show'?"),
    ("list gmaes", "did you mean 'games'?"),
    ("weights", "choose one of fetch, status"),
    ("train", "no game given: add --game Pong"),
    ("train --gmae Pong", "no such option: --gmae (Possible options: --game"),
    ("train --game", "option '--game' requires an argument; see `remctl train --help`"),
    ("train --game Pong extra", "unexpected extra argument(s) (extra)"),
    ("train --game Pong --quiet=3", "option '--quiet' does not take a value"),
    ("train --game Pnog", "unknown game 'Pnog': did you mean Pong?"),
    ("train --game pong", "did you mean Pong?"),
    ("train --game PongNoFrameskip-v4", "did you mean Pong?"),
    ("train --game [red]Pong", "unknown game '[red]Pong'"),
    ("train --game Pong --preset quikc", "unknown preset 'quikc': did you mean quick?"),
    ("train --game Pong --preset xyz", "known: paper, quick, corrected, paper-text"),
    ("train --game Pong --variant no-pop", "unknown variant 'no-pop': did you mean no_pop"),
    ("train --game Pong --set world_model.num_layer=3", "did you mean world_model.num_layers"),
    ("train --game Pong --set world_model.num_layers=x", "world_model.num_layers: given 'x'; allowed: integer"),
    ("train --game Pong --set world_model.num_layers=0", "given 0; allowed: greater than or equal to 1"),
    ("train --game Pong --set tokenizer.perceptual=ssim", "given 'ssim'; allowed: 'lpips', 'pixel' or 'none'"),
    ("train --game Pong --set world_model=3", "world_model is a section"),
    ("train --game Pong --set seed=3", "give --seed on the command line"),
    ("train --game Pong --set nothing", "write key=value"),
    ("train --game Pong --set tokenizer.grid_size=3", "set it to one half, quarter, eighth"),
    ("train --game Pong --set tokenizer.codebook_init=kmeans", "set tokenizer.warmup=fixed or beats_median"),
    ("train --game Pong --seed -1", "seed: given -1; allowed: greater than or equal to 0"),
    ("train --game Pong --seed 9999999999", "seed: given 9999999999; allowed: less than 2147483648"),
    ("train --game Pong --seed one", "'--seed': allowed is a valid integer, given 'one'"),
    ("train --game Pong --seed=one", "'--seed': allowed is a valid integer, given 'one'"),
    ("train --game Pong --device gpu", "--device: given 'gpu'; allowed: auto, cpu, cuda, cuda:N"),
    ("train --game Pong --config none.yaml", "none.yaml: No such file or directory"),
    ("train --game Pong --config list.yaml", "list.yaml: holds [1, 2], not a mapping"),
    (
        "train --game Pong --config broken.yaml",
        "broken.yaml:2: not YAML (expected ',' or ']', but got ':'): write",
    ),
    ("train --game Pong --config unknown.yaml", "unknown.yaml: unknown key 'world_model.layers'"),
    ("eval", "missing argument 'RUN'"),
    ("eval nowhere", "nowhere: not a run folder (no config.yaml)"),
    ("eval run --episodes 0", "'--episodes': allowed is greater than or equal to 1, given '0'"),
    ("inspect list.yaml", "list.yaml: not a run folder"),
    ("config show --seed", "option '--seed' requires an argument; see `remctl config show --help`"),
    ("config explain lambda", "unknown key 'lambda': did you mean controller.lambda?"),
    ("config explain wrld_model", "did you mean world_model"),
    ("config explain", "missing argument 'KEY'"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: {")
    (tmp_path / "unknown.yaml").write_text("world_model:\n  layers: 3\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(resolve("Pong")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line(cli: Callable, runner: SimpleNamespace, line: str, message: str) -> None:
    done = cli(*line.split())
    assert done.status == 2, done
    assert done.out == ""
    assert done.err.startswith("remctl: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert runner.calls == []


@pytest.mark.parametrize(
    "line", ["--debug train --game Pnog", "train --debug --game Pnog", "train --game Pnog --debug"]
)
def test_debug_shows_the_traceback_and_the_line(cli: Callable, line: str) -> None:
    done = cli(*line.split())
    assert done.status == 2
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-1] == "remctl: unknown game 'Pnog': did you mean Pong?"


@pytest.mark.parametrize("verb", [("train",), ("config", "show")])
def test_a_key_without_effect_is_refused(cli: Callable, verb: tuple[str, ...], tmp_path: Path) -> None:
    where = ("--out", str(tmp_path)) if verb == ("train",) else ()
    done = cli(*verb, "--game", "Catch", "--preset", "quick", "--set", "environment.frame_skip=2", *where)
    assert done.status == 2
    assert done.err == "remctl: environment.frame_skip has no effect here: Catch has none; leave it out\n"
    assert list(tmp_path.iterdir()) == []
