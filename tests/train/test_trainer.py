"""The trainer: what a whole run does with its configuration, and in which order it writes."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from remctl import runner
from remctl.errors import UserError
from remctl.replay.store import load_shard
from remctl.runs import files
from remctl.runs.files import read_json, read_jsonl
from remctl.runs.layout import RunFolder
from remctl.train.acting import Policy
from remctl.train.collector import Collector
from remctl.train.seeding import Randomness
from remctl.train.trainer import has_clipped
from tests.envs.test_pixels import Walk
from tests.train.support import tiny, train


def test_collection_acts_as_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C acts from the epoch after its first training on, with the collection's temperature and epsilon."""
    policies: list[Policy] = []
    collect = Collector.collect
    monkeypatch.setattr(
        Collector, "collect", lambda self, n, policy, *a: policies.append(policy) or collect(self, n, policy, *a)
    )
    sets = ("controller.training.start_after_epoch=1", "collection.temperature=0.3", "collection.epsilon=0.2")
    train(tmp_path, tiny(*sets, "evaluation.every_epochs=9"))
    assert [p.decides for p in policies] == [False, False, True, True]
    assert {(p.temperature, p.epsilon, p.executed_action_to_controller) for p in policies} == {(0.3, 0.2, True)}


@pytest.mark.parametrize(("memory", "reminded"), [("burned_in", [2, 3, 4]), ("carried", [])])
@pytest.mark.parametrize(
    ("untrained", "decides"), [("controller", [True] * 4), ("uniform", [False, False, True, True])]
)
def test_who_acts_before_c_is_trained_and_what_it_remembers_as_published_or_not(
    untrained: str,
    decides: list[bool],
    memory: str,
    reminded: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policies: list[Policy] = []
    shown: dict[int, np.ndarray] = {}
    collect, remind = Collector.collect, Collector.remind

    def watched(self: Collector, policy: Policy, frames: np.ndarray) -> None:
        shown[len(policies) + 1] = frames
        remind(self, policy, frames)

    monkeypatch.setattr(
        Collector, "collect", lambda self, n, policy, *a: policies.append(policy) or collect(self, n, policy, *a)
    )
    monkeypatch.setattr(Collector, "remind", watched)
    sets = [f"collection.untrained_policy={untrained}", f"collection.controller_memory={memory}"]
    sets += ["controller.training.start_after_epoch=1", "evaluation.every_epochs=9", "imagination.burn_in_frames=3"]
    train(tmp_path, tiny(*sets))
    assert [p.decides for p in policies] == decides
    assert [epoch for epoch in shown if len(shown[epoch])] == [e for e in reminded if decides[e - 1]]
    for epoch, frames in shown.items():
        if len(frames):
            stored = load_shard(RunFolder(tmp_path), epoch - 1)
            newest = int(np.flatnonzero(stored.first)[-1])
            assert np.array_equal(frames, stored.frames[newest:][-3:])


@pytest.mark.parametrize("ends", [True, False])
def test_the_time_limit_is_stored_as_an_end_or_not(ends: bool, tmp_path: Path) -> None:
    sets = ("environment.time_limit_train_frames=100", f"environment.time_limit_ends={str(ends).lower()}")
    train(tmp_path, tiny(*sets, "training.num_epochs=1", game="Pong"))
    stored = load_shard(RunFolder(tmp_path), 1)
    cut_off = np.flatnonzero(stored.first)[1:] - 1  # no game of Pong is over so soon
    assert len(cut_off) >= 3
    assert np.flatnonzero(stored.ends[:-1]).tolist() == (cut_off.tolist() if ends else [])


@pytest.mark.parametrize(("seeding", "is_seeded"), [("seeded", True), ("unseeded", False)])
def test_resets_are_seeded_as_configured(
    seeding: str, is_seeded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    collect = Collector.collect
    monkeypatch.setattr(Collector, "collect", lambda self, *a: asked.append(a[-1]) or collect(self, *a))
    train(tmp_path, tiny(f"environment.seeding={seeding}", "training.num_epochs=1", "evaluation.every_epochs=9"))
    assert asked == [is_seeded]


def test_tests_begin_when_c_has_been_trained(tmp_path: Path) -> None:
    train(tmp_path, tiny("controller.training.start_after_epoch=2", "evaluation.every_epochs=1"))
    tested = [e["epoch"] for e in read_jsonl(RunFolder(tmp_path).metrics) if "test/return_mean" in e]
    assert tested == [3, 4]


def test_every_epoch_collects_by_its_own_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chances: list[Randomness] = []
    collect = Collector.collect
    monkeypatch.setattr(
        Collector, "collect", lambda self, n, p, random, *a: chances.append(random) or collect(self, n, p, random, *a)
    )
    train(tmp_path, tiny("training.num_epochs=2", "evaluation.every_epochs=9"))
    assert [(r.epoch, r.component) for r in chances] == [(1, "collect"), (2, "collect")]


def test_everything_of_an_epoch_is_on_the_disk_before_the_rename_that_commits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr(files, "boundary", names.append)
    train(tmp_path, tiny("training.num_epochs=1", "evaluation.every_epochs=9"))
    commit = names.index("before rename epoch_000001")
    for name in ("after fsync metrics.jsonl", "after fsync episodes.jsonl", "after rename epoch_000001.npz"):
        assert name in names[:commit]
        assert name not in names[commit:]


@pytest.mark.parametrize("component", ["world_model", "controller"])
def test_a_diverged_run_ends_with_the_component_named(component: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"diverged in epoch \\d: {component}/"):
        train(tmp_path, tiny(f"{component}.training.learning_rate=1e30"))


@pytest.mark.parametrize(("rewards", "graded"), [([0, 1, -1], False), ([0.5], True), ([0, 2], True), ([], False)])
def test_says_clipped_are_those_that_are_more_than_their_sign(rewards: list[float], graded: bool) -> None:
    assert has_clipped(np.array(rewards, np.float32)) is graded


def test_a_run_says_that_it_learns_the_sign_of_says_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gymnasium.registry, "Walk-v0", gymnasium.envs.registration.EnvSpec("Walk-v0", Walk))
    arguments = {"out": tmp_path, "experiment": "x", "device": "cpu", "command": [], "quiet": True}
    walk = runner.train(tiny("training.num_epochs=1", game="gym:Walk-v0"), **arguments)
    assert "gym:Walk-v0 returns rewards other than -1, 0 and 1: REM learns only their sign" in walk.log.read_text()
    assert read_json(walk.result)["rewards_clipped"] is True
    catch = runner.train(tiny("training.num_epochs=1"), **arguments)
    assert "only their sign" not in catch.log.read_text()
    assert read_json(catch.result)["rewards_clipped"] is False
