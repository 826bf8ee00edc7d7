"""Bundles that are none, damaged, newer, or of a stranger: one line with what to do from every verb, and nothing is left."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import safetensors.torch
import torch

from remctl.config import config_hash, from_yaml, resolve
from remctl.runs.code import this_code
from remctl.runs.places import Places
from remctl.sweep.observe import RunState, find_places, observe
from remctl.sweep.wanted import WantedRun
from tests.exchange.bundles import change, reconfigure, seal
from tests.exchange.conftest import refused
from tests.exchange.test_mistakes import Boom

Change = Callable[[Path], object]


def manifest(bundle: Path, **values: Any) -> None:
    path = bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def listed(bundle: Path, name: str) -> None:
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    manifest(bundle, files=files | {name: files["config.yaml"]})


def unlisted(bundle: Path, name: str) -> None:
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    manifest(bundle, files={key: value for key, value in files.items() if key != name})


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def replaced(bundle: Path, data: bytes) -> None:
    (bundle / "agent.safetensors").write_bytes(data)
    seal(bundle)


def weights(bundle: Path, **changed: torch.Tensor) -> None:
    """Some of them, or others."""
    replaced(bundle, safetensors.torch.save(safetensors.torch.load_file(bundle / "agent.safetensors") | changed))


def not_finite(bundle: Path) -> None:
    tensor = safetensors.torch.load_file(bundle / "agent.safetensors")["controller.actor.weight"]
    weights(bundle, **{"controller.actor.weight": tensor * torch.nan})


def added(bundle: Path, name: str) -> None:
    (bundle / name).write_text("{broken")


def renamed_weights(bundle: Path) -> None:
    tensors = safetensors.torch.load_file(bundle / "agent.safetensors")
    replaced(bundle, safetensors.torch.save({f"{name}x": tensor for name, tensor in tensors.items()}))


def configured(bundle: Path, old: str, new: str) -> None:
    path = bundle / "config.yaml"
    path.write_text(path.read_text().replace(old, new))
    seal(bundle)


DAMAGE: dict[str, Change] = {
    "config.yaml does not match its checksum": lambda b: flipped(b / "config.yaml"),
    "agent.safetensors does not match its checksum": lambda b: flipped(b / "agent.safetensors"),
    "media/dream.webp does not match its checksum": lambda b: flipped(b / "media/dream.webp"),
    "README.md has 3 bytes, not": lambda b: (b / "README.md").write_text("abc"),
    "episodes.jsonl is missing": lambda b: (b / "episodes.jsonl").unlink(),
    "config.yaml is missing": lambda b: (b / "config.yaml").unlink(),
    "agent.safetensors is missing": lambda b: (b / "agent.safetensors").unlink(),
    "bundle.json is missing": lambda b: (b / "bundle.json").unlink(),
    "bundle.json is not JSON": lambda b: (b / "bundle.json").write_text("{"),
    "bundle.json does not describe a bundle": lambda b: (b / "bundle.json").write_text("[]"),
    "bundle.json lists '../x', which is not a path inside": lambda b: listed(b, "../x"),
    "bundle.json lists '/etc/passwd', which is not a path inside": lambda b: listed(b, "/etc/passwd"),
    "bundle.json lists 'media/./x', which is not a path inside": lambda b: listed(b, "media/./x"),
    "bundle.json does not list result.json": lambda b: unlisted(b, "result.json"),
    "result.json is a link": lambda b: linked(b / "result.json"),
    "media/dream.webp is a link": lambda b: linked(b / "media"),
    "bundle.json does not describe": lambda b: manifest(b, epoch="4"),
    "bundle.json states epoch 2, the run ends with epoch 4": lambda b: manifest(b, epoch=2),
    "bundle.json states epoch -1": lambda b: manifest(b, epoch=-1),
    "bundle.json states configuration '000000000000', config.yaml is": lambda b: manifest(b, config_hash="0" * 12),
    "result.json states configuration ['x']": lambda b: (change(b / "result.json", config_hash=["x"]), seal(b)),
    "the head of config.yaml states configuration": lambda b: configured(b, "hidden_dim: 16", "hidden_dim: 32"),
    **{
        f"bundle.json does not list {name}, which a run has": partial(unlisted, name=name)
        for name in ("provenance.json", "metrics.jsonl", "episodes.jsonl")
    },
    **{
        f"bundle.json does not list {name}, which": partial(added, name=name)
        for name in ("imported.json", "requests.jsonl", "train.log", "lock")
    },
}
STRANGE: dict[str, Change] = {
    "has bundle format 2, this remctl reads up to format 1: update remctl": lambda b: manifest(b, format=2),
    "is truncated, damaged or not a safetensors file": lambda b: replaced(b, b"\x80\x04" + pickle.dumps(Boom())),
    "agent.safetensors is truncated, damaged": lambda b: replaced(b, (b / "agent.safetensors").read_bytes()[:-9]),
    "controller.actor.weight has values that are not finite": not_finite,
    "update remctl": lambda b: configured(b, "preset: quick", "preset: quick\nworld_model_of_the_future: 1"),
}
AT_PLAY: dict[str, Change] = {
    "its weights do not fit its config.yaml": renamed_weights,
    "its weights do not fit its config.yaml (": lambda b: weights(b, **{f"controller.{'1' * 5000}": torch.zeros(1)}),
    "its weights do not fit its config.yaml (RuntimeError": lambda b: reconfigure(b, **{"controller.hidden_dim": 32}),
    "(the extra 'minatar')": lambda b: reconfigure(b, game="gym:MinAtar/Breakout-v1"),
}


@pytest.mark.parametrize("words", [*DAMAGE, *STRANGE])
def test_a_damaged_or_strange_one_is_refused_by_all(cli: Callable, exported: Path, words: str) -> None:
    (DAMAGE | STRANGE)[words](exported)
    before = sorted(exported.rglob("*"))
    for line in (
        ("eval", exported),
        ("inspect", exported, "--out", "figures"),
        ("import", exported, "--out", "run"),
        ("export", exported, "--format", "rem", "--out", "x.pt", "--without-lpips"),
    ):
        if line[0] != "export" or words != "update remctl":
            refused(cli(*line), words)
    assert sorted(exported.rglob("*")) == before
    assert not any(Path(name).exists() for name in ("run", "x.pt", "boom", "figures/diagnosis.json"))


@pytest.mark.parametrize("words", AT_PLAY)
def test_one_that_cannot_be_played_is_refused(
    cli: Callable, exported: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("minatar", "minatar.gym"):
        monkeypatch.setitem(sys.modules, name, None)
    others = {name: spec for name, spec in gymnasium.registry.items() if not name.startswith("MinAtar/")}
    monkeypatch.setattr(gymnasium, "registry", others)
    AT_PLAY[words](exported)
    refused(cli("eval", exported), words)
    refused(cli("inspect", exported, "--out", "figures"), words)


def test_files_of_others_in_it_are_named_and_not_read(cli: Callable, exported: Path) -> None:
    (exported / "checkpoints").mkdir()
    (exported / "checkpoints/x.pt").write_bytes(pickle.dumps(Boom()))
    done = cli("eval", exported)
    assert done.status == 0, done.err
    assert "not part of the bundle, and not read: checkpoints/x.pt" in done.err
    assert not Path("boom").exists()


def test_what_is_no_bundle(cli: Callable, exported: Path, finished: Path, tmp_path: Path) -> None:
    foreign, file = tmp_path / "foreign", tmp_path / "x.pt"
    foreign.mkdir()
    (foreign / "model.bin").touch()
    file.touch()
    for given in (foreign, file, finished):
        refused(cli("import", given, "--out", "run"), "add --from rem or --from iris")
        refused(cli("import", given, "--out", "run", "--from", "bundle"), "no bundle.json in it")
    refused(cli("import", tmp_path / "absent", "--out", "run"), "no such file or folder")
    refused(cli("import", exported, "--out", "run", "--from", "bundel"), "bundle")
    refused(cli("eval", foreign), "not a run folder")
    refused(cli("import", exported, "--out", "run", "--game", "Pong", "--seed", "3"), "leave out --game, --seed")
    refused(cli("import", exported, "--out", foreign), "has something in it already")
    refused(cli("import", exported, "--out", file), "no folder")
    assert not Path("run").exists()


@pytest.mark.usefixtures("exported", "full_disk")
def test_a_failure_of_the_disk_leaves_no_run(cli: Callable, exported: Path, tmp_path: Path) -> None:
    refused(cli("import", exported, "--out", "run"), "disk full")
    assert [path.name for path in tmp_path.iterdir()] == [exported.name]


def test_the_last_agent_must_be_there(cli: Callable, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints/epoch_000004")
    refused(cli("export", run, "--out", "out"), "the agent of its last epoch is lost")
    assert not Path("out").exists()


def test_a_file_that_is_missing_or_damaged_is_named(cli: Callable, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "metrics.jsonl").unlink()
    refused(cli("export", run, "--out", "out"), f"no such file or folder while reading {run}/metrics.jsonl")
    (run / "metrics.jsonl").write_bytes(b"\xff\n")
    refused(cli("export", run, "--out", "out"), f"{run}/metrics.jsonl is damaged")
    assert not Path("out").exists()


def in_an_ablation(bundle: Path, out: Path, experiment: str = "sweep") -> Path:
    return Path(shutil.copytree(bundle, out / experiment / "rem/Catch/seed_0"))


def state_of(place: Path, out: Path) -> RunState:
    config = from_yaml(place / "config.yaml")
    run = WantedRun("rem", "Catch", 0, config, config_hash(config))
    return observe(find_places(out, "sweep", [run], []), [], {})[run.config_hash]


@pytest.mark.parametrize("lost", ["result.json", "bundle.json", "agent.safetensors", "metrics.jsonl"])
def test_one_that_lost_a_file_is_blocked_in_an_ablation(exported: Path, tmp_path: Path, lost: str) -> None:
    place = in_an_ablation(exported, tmp_path / "runs")
    assert state_of(place, tmp_path / "runs").status == "done"
    (place / lost).unlink()
    state = state_of(place, tmp_path / "runs")
    assert (state.status, state.folder) == ("blocked", place)
    assert "is a damaged bundle" in state.reason


@pytest.mark.parametrize("is_own", [True, False])
def test_a_damaged_one_goes_after_a_finished_run(exported: Path, finished: Path, tmp_path: Path, is_own: bool) -> None:
    out = tmp_path / "runs"
    names = ("sweep", "z") if is_own else ("z", "sweep")
    damaged, whole = (in_an_ablation(run, out, name) for run, name in zip((exported, finished), names, strict=True))
    for change_it in (lambda: flipped(damaged / "agent.safetensors"), lambda: (damaged / "result.json").unlink()):
        change_it()
        state = state_of(whole, out)
        assert (state.status, state.folder) == ("done", whole)
        identity = config_hash(from_yaml(whole / "config.yaml"))
        by_code = find_places(out, "sweep", [WantedRun("rem", "Catch", 0, resolve("Catch"), identity)], [], this_code())
        assert list(by_code.values()) == [whole]
        found = Places(out).find(out / "sweep", "sweep/rem/Catch/seed_0", identity)
        assert found == whole


@pytest.mark.parametrize("words", ["bundle.json states epoch 2", "bundle.json does not list provenance.json"])
def test_reports_leave_a_strange_one_out(cli: Callable, exported: Path, words: str) -> None:
    shutil.copytree(exported, "runs/a/seed_0")
    place = Path("runs/a/seed_1")
    shutil.copytree(exported, place)
    reconfigure(place, seed=1)
    next(change_it for name, change_it in DAMAGE.items() if name.startswith(words))(place)
    done = cli("report", "runs", "--out", "page", "--format", "md")
    assert done.status == 0, done.err
    assert words in "".join(path.read_text() for path in Path("page").glob("*.md"))
