"""Variants of one seed draw the same wherever neither is changed: their runs can be compared pair by pair.

The whole first epoch of each variant beside the control's: what is collected, batches, dropout's masks, what imagination
draws; and, to the bit, what comes out of training a component that no key of the variant reaches.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from remctl import dropout
from remctl.rem import imagination, world_model
from remctl.rem.sampling import sample_categorical
from remctl.replay.store import load_shard
from remctl.runner import prepare_torch
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import MetricsLog
from remctl.train import phases
from remctl.train.trainer import Trainer
from remctl.variants import VARIANTS
from tests.test_isolation import small
from tests.train.support import InterruptingReporter

# What M's or C's training draws from, where a variant says so: segments of another length, other starting points.
OTHER_BATCHES = dict.fromkeys(("iris", "iris_rem"), {"tokenizer", "world_model", "controller"})


@dataclass
class Epoch:
    """Everything that the first epoch of a run drew, and what it left."""

    collected: list[np.ndarray]
    drawn: dict[str, list[Any]] = field(default_factory=dict)
    weights: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


def touched(name: str) -> set[str]:
    """Sections of which the variant sets a key."""
    return {key.split(".")[0] for key in VARIANTS[name].overrides}


def recorded(patch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """From now on: batches by component, masks, and the uniform numbers of imagination by what they decide."""
    drawn: dict[str, list[Any]] = {}
    for component, name in (
        ("tokenizer", "sample_frames"),
        ("world_model", "sample_segments"),
        ("controller", "sample_starts"),
    ):
        sample = getattr(phases, name)

        def sampling(*args: Any, component: str = component, sample: Any = sample) -> np.ndarray:
            found = sample(*args)
            drawn.setdefault(component, []).append(found)
            return found

        patch.setattr(phases, name, sampling)
    keep_mask = dropout.keep_mask
    patch.setattr(
        dropout, "keep_mask", lambda *a: drawn.setdefault("masks", []).append(keep_mask(*a)) or drawn["masks"][-1]
    )
    for module in (imagination, world_model):

        def sampling_one(
            logits: torch.Tensor, generator: torch.Generator, temperature: float = 1.0, module: Any = module
        ) -> torch.Tensor:
            ahead = torch.Generator()
            ahead.set_state(generator.get_state())
            of_model = {3: "rewards", 2: "ends"}.get(logits.shape[-1], "observations")
            what = "actions" if module is imagination else of_model
            drawn.setdefault(what, []).append(torch.rand(logits.shape[:-1], generator=ahead))
            return sample_categorical(logits, generator, temperature)

        patch.setattr(module, "sample_categorical", sampling_one)
    return drawn


@functools.cache
def first_epoch(name: str, folder: Path) -> Epoch:
    """Of the variant."""
    config, run = small(name), RunFolder(folder / name)
    run.path.mkdir()
    prepare_torch(config)
    with pytest.MonkeyPatch.context() as patch:
        drawn = recorded(patch)
        trainer = Trainer(config, run, torch.device("cpu"), InterruptingReporter(), MetricsLog(run))
        trainer.resume()
        trainer.run_epoch(1)
    steps = load_shard(run, 1)
    return Epoch([steps.frames, steps.actions, steps.rewards, steps.first], drawn, trainer.agent.state_dict())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("paired")
    first_epoch.cache_clear()


@pytest.fixture(params=[name for name in VARIANTS if name != "rem"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_environment_and_acting_are_the_controls(name: str, folder: Path) -> None:
    for ours, theirs in zip(first_epoch("rem", folder).collected, first_epoch(name, folder).collected, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("component", ["tokenizer", "world_model", "controller"])
def test_batches_are_the_controls(component: str, name: str, folder: Path) -> None:
    ours, theirs = (first_epoch(n, folder).drawn[component] for n in ("rem", name))
    if component in OTHER_BATCHES.get(name, ()):
        assert not np.array_equal(ours[-1], theirs[-1])  # V's first ones are its warm-up's
        return
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b)


def test_masks_are_the_controls_where_they_have_its_shapes(name: str, folder: Path) -> None:
    ours, theirs = (first_epoch(n, folder).drawn["masks"] for n in ("rem", name))
    of_other_shapes = [m.shape for m in ours] != [m.shape for m in theirs]
    assert of_other_shapes is (name in ("no_pop", "tokenizer_4x4", "iris", "iris_rem"))
    assert of_other_shapes or all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("what", ["actions", "observations", "rewards", "ends"])
def test_imagination_draws_as_the_controls_does(what: str, name: str, folder: Path) -> None:
    """As many numbers as both take: other tokens shift neither actions nor rewards and ends."""
    ours, theirs = (torch.cat([u.flatten() for u in first_epoch(n, folder).drawn[what]]) for n in ("rem", name))
    count = min(len(ours), len(theirs))
    assert count > 0
    assert torch.equal(ours[:count], theirs[:count])


def test_a_component_that_the_variant_does_not_reach_is_trained_to_the_same_weights(name: str, folder: Path) -> None:
    """V depends on its own keys, M on those of V and its own; C on all."""
    ours, theirs = first_epoch("rem", folder).weights, first_epoch(name, folder).weights
    same = {
        part: ours[part].keys() == theirs[part].keys()
        and all(torch.equal(values, theirs[part][n]) for n, values in ours[part].items())
        for part in ours
    }
    assert same["tokenizer"] or "tokenizer" in touched(name)
    assert same["world_model"] or touched(name) & {"tokenizer", "world_model"}
    assert not same["controller"] or name == "sequential_states"  # another schedule of the same sums
