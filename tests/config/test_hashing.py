"""The identity of a run: what the hash covers, and that keys of later versions leave it as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from remctl.config import ControllerConfig, RunConfig, config_hash, differing, identity, keys, resolve
from remctl.config.effects import without_effect
from remctl.config.hashing import baseline
from remctl.config.presets import ACCIDENTS, CORRECTIONS
from remctl.config.section import option

DATA = Path(__file__).parents[1] / "data"
SHARED = "training.random_streams=shared"  # as version 0.1.0 drew


def test_hash_ignores_labels_and_runtime() -> None:
    base = config_hash(resolve("Pong"))
    assert config_hash(resolve("Pong", sets=["runtime.trackers=[wandb]", "runtime.precision=fp32"])) == base
    grid_4 = resolve("Pong", sets=["tokenizer.grid_size=4"])
    assert config_hash(resolve("Pong", variant="tokenizer_4x4")) == config_hash(grid_4) != base
    corrected = [f"{key}={str(value).lower()}" for key, value in CORRECTIONS.items()]
    assert config_hash(resolve("Pong", sets=corrected)) == config_hash(resolve("Pong", preset="corrected"))


def test_hash_covers_every_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    config, base, flat = resolve("Pong"), config_hash(resolve("Pong")), keys(resolve("Pong"))
    for key in flat.keys() - without_effect(config):
        monkeypatch.setattr(sys.modules["remctl.config.hashing"], "keys", lambda _, key=key: flat | {key: "other"})
        covered = key not in ("preset", "variant") and not key.startswith("runtime.")
        assert (config_hash(config) != base) == covered, key


def test_hash_is_of_values_not_of_spellings() -> None:
    assert config_hash(resolve("Pong")) == config_hash(resolve("Pong", sets=["collection.epsilon=1e-2"]))
    assert len(config_hash(resolve("Pong"))) == 12


# Keys that came after version 0.1.0, with their defaults.
SINCE = {
    "training.random_streams": "named",
    "environment.late_game_over": True,
    "environment.dead_starts": True,
    "environment.time_limit_ends": True,
    "collection.untrained_policy": "controller",
    "collection.controller_memory": "burned_in",
    "training.sampling": "passes",
}


def test_identity_is_what_differs_from_the_program_before_each_key() -> None:
    assert identity(resolve("Gopher", "paper", seed=3)) == {"game": "Gopher", "seed": 3} | SINCE
    streams = {"training.random_streams": "named"}
    four = identity(resolve("Pong", variant="tokenizer_4x4", preset="corrected"))
    assert four == {"game": "Pong", "seed": 0, "tokenizer.grid_size": 4} | ACCIDENTS | streams
    shared = identity(resolve("Pong", variant="tokenizer_4x4", preset="corrected", sets=[SHARED]))
    assert shared == {"game": "Pong", "seed": 0, "tokenizer.grid_size": 4} | ACCIDENTS
    names = differing(resolve("Pong"), resolve("Pong", variant="tokenizer_4x4", sets=["runtime.compile=off"]))
    assert names == {"tokenizer.grid_size": (8, 4)}


# --- later versions


class LaterController(ControllerConfig):
    """With a key that the program did not have: until then it behaved as `before`."""

    warm_up: int = option(7, "a later key whose default changes behaviour", before=0)
    style: str = option("plain", "a later key whose default is what the program did", before="plain")


class LaterRun(RunConfig):
    controller: LaterController = LaterController()


def later(**values: object) -> LaterRun:
    return LaterRun(game="Pong", controller=LaterController(**values))


def test_a_later_key_leaves_the_hash_of_what_the_program_did_before() -> None:
    assert config_hash(later(warm_up=0)) == config_hash(resolve("Pong"))


def test_a_later_key_with_another_value_makes_another_run() -> None:
    hashes = [config_hash(later(warm_up=warm_up, style=style)) for warm_up in (0, 7) for style in ("plain", "bold")]
    assert len(set(hashes)) == 4
    assert identity(later()) == identity(resolve("Pong")) | {"controller.warm_up": 7}


def test_the_baseline_of_the_first_release_never_changes() -> None:
    """A default that changes must declare its old value as `before`, or every run's hash changes its meaning."""
    first = json.loads((DATA / "keys_0_1_0.json").read_text())
    del first["training.precision"]  # of the device since
    assert first == {key: value for key, value in baseline().items() if key in first}


def test_hashes_of_the_presets_are_those_that_runs_were_made_with() -> None:
    """Of this version's runs, and of those of 0.1.0, with what the program did before each later key."""
    pinned = json.loads((DATA / "hashes.json").read_text())
    found = {name: config_hash(resolve(*name.split())) for name in pinned["now"]}
    assert found == pinned["now"], "finished runs of these would be trained again: give the new key its `before`"
    assert {name: config_hash(resolve(*name.split(), sets=before(name))) for name in found} == pinned["0.1.0"]


def before(name: str) -> list[str]:
    """What a preset that is called `name` did in version 0.1.0."""
    first = json.loads((DATA / "keys_0_1_0.json").read_text())
    later = {key: value for key, value in baseline().items() if key not in first and not key.startswith("runtime.")}
    later |= {"evaluation.every_epochs": 10, "tokenizer.lpips_head_dropout": False} if "iris" in name else {}
    later |= {"imagination.burn_in_frames": 20} if "paper-text" in name else {}
    return [f"{key}={json.dumps(value)}" for key, value in later.items()]
