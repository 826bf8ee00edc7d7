"""What each suite measures: configurations side by side, the first of a group being what the others are compared to.

A group is measured together, its members taking turns. Configurations are the shipped presets and variants; a suite adds
batch sizes, and at the reduced scale what makes it fit into minutes on two processor cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from remctl.bench.table import words
from remctl.config import RunConfig, build, keys
from remctl.config.presets import preset_overrides
from remctl.variants import VARIANTS

Scale = Literal["full", "reduced"]
Overrides = dict[str, Any]
USUAL_SUITES = ("paper", "ablations", "components", "scaling", "phases", "packing")
SUITES = (*USUAL_SUITES, "precision")  # which trains for minutes, and times nothing: only where it is asked for
ROUNDS: Mapping[Scale, int] = {"full": 9, "reduced": 6}
TRAINING, ROLLOUT, EPOCH = "world_model", "imagination", "epoch"

REDUCED_BATCH = 2
REDUCED: Overrides = {"imagination.burn_in_frames": 4}
REDUCED_HORIZON = 4
SCALING_BATCH: Mapping[Scale, int] = {"full": 32, "reduced": 2}
SCALING_BASE: Mapping[Scale, Overrides] = {
    "full": {},
    "reduced": REDUCED | {"world_model.num_layers": 2, "tokenizer.grid_size": 4},
}
SCALED: Mapping[Scale, Mapping[str, tuple[int, ...]]] = {
    "full": {
        "tokens_per_obs": (16, 64, 256),
        "imagined_steps": (4, 8, 16),
        "batch_size": (8, 32, 128),
        "num_layers": (2, 5, 10),
    },
    "reduced": {
        "tokens_per_obs": (16, 64, 256),
        "imagined_steps": (2, 4, 8),
        "batch_size": (2, 8, 32),
        "num_layers": (1, 2, 4),
    },
}
TRAINING_AXES = ("tokens_per_obs", "batch_size", "num_layers")
PACKING_BATCH: Mapping[Scale, int | None] = {"full": None, "reduced": 4}
PACKED_PROCESSES: Mapping[Scale, tuple[int, ...]] = {"full": (1, 2, 4, 8), "reduced": (1, 2)}
PRECISION_BATCH: Mapping[Scale, int | None] = {"full": None, "reduced": 4}
PACKING_WINDOW_S: Mapping[Scale, float] = {"full": 5.0, "reduced": 0.5}


@dataclass(frozen=True)
class Subject:
    """One configuration, and the kinds of work in which it is timed; `value`: to what its group's axis is set."""

    name: str
    config: RunConfig
    phases: tuple[str, ...]
    value: int | None = None


@dataclass(frozen=True)
class Packed:
    """How many processes train side by side, ascending, and how long each measurement lasts at least."""

    processes: tuple[int, ...]
    window_s: float


@dataclass(frozen=True)
class Group:
    """What is measured together, in the same rounds. `axis`: what a scaling suite varies; `packed`: the suite packing's."""

    suite: str
    subjects: tuple[Subject, ...]
    axis: str | None = None
    packed: Packed | None = None

    @property
    def title(self) -> str:
        """The suite, and what it varies."""
        return f"{self.suite}, {words(self.axis)}" if self.axis else self.suite

    def baseline(self, subject: Subject) -> Subject:
        """What it is compared to: the first of its value."""
        return next(s for s in self.subjects if s.value == subject.value)


def groups(suite: str, scale: Scale, batch: int | None, phases_of: RunConfig) -> list[Group]:
    """The groups of a suite; `batch` for all batch sizes; `phases_of` is what the last three suites measure."""
    if suite == "scaling":
        return _scaling(scale, batch)
    if suite == "phases":
        return [Group(suite, (_given(phases_of, batch, ("tokenizer", TRAINING, "controller")),))]
    if suite == "packing":
        packed = Packed(PACKED_PROCESSES[scale], PACKING_WINDOW_S[scale])
        return [Group(suite, (_given(phases_of, batch or PACKING_BATCH[scale], (EPOCH,)),), packed=packed)]
    if suite == "precision":
        return [Group(suite, (_halved(phases_of, scale, batch),))]
    subjects = {"paper": _paper, "ablations": _ablations, "components": _components}[suite](scale, batch)
    return [Group(suite, tuple(subjects))]


def what_was_scaled(suites: tuple[str, ...], scale: Scale, batch: int | None) -> tuple[str, ...]:
    """As sentences, what differs from the published configurations."""
    said = []
    if batch:
        said.append(f"Batch sizes are {batch} (--batch); where the scaling suite varies them, what it says.")
    if scale == "full":
        return tuple(said)
    if set(suites) & {"paper", "ablations", "components"}:
        size = "" if batch else f"batches of {REDUCED_BATCH}, where the published agents have 64 to 256, and "
        said.append(
            f"Reduced scale, suites paper, ablations, components: {size}rollouts with a horizon of {REDUCED_HORIZON} blocks "
            f"(IRIS as published: {2 * REDUCED_HORIZON}) after {REDUCED['imagination.burn_in_frames']} frames of burn-in, "
            "where the published have 10 (20) after 20; networks and tokens are those of the published agents."
        )
    if "scaling" in suites:
        size = "" if batch else f"batch {SCALING_BATCH['reduced']}, "
        said.append(
            f"Reduced scale, suite scaling: 2 layers, 16 tokens, {size}2 imagined steps, where it varies none of them."
        )
    if "phases" in suites:
        said.append(
            "Suite phases: the named configuration as it is; at the reduced scale preset quick where none is given."
        )
    if "packing" in suites:
        size = "" if batch else f", batches of {PACKING_BATCH['reduced']}"
        said.append(
            f"Reduced scale, suite packing: {_listed(PACKED_PROCESSES['reduced'])} processes of the named configuration, "
            f"preset quick where none is given{size}; windows of {PACKING_WINDOW_S['reduced']:g} s, where the full scale has "
            f"{_listed(PACKED_PROCESSES['full'])} processes and {PACKING_WINDOW_S['full']:g} s."
        )
    if "precision" in suites:
        size = "" if batch else f", batches of {PRECISION_BATCH['reduced']}"
        said.append(
            f"Reduced scale, suite precision: the named configuration, preset paper where none is given, with one layer of M "
            f"and half of V's channels{size}."
        )
    return tuple(said)


def what_was_left_out(left_out: Sequence[Group]) -> tuple[str, ...]:
    """As a sentence, what there was no time for."""
    if not left_out:
        return ()
    titles, suites = "; ".join(group.title for group in left_out), dict.fromkeys(group.suite for group in left_out)
    return (
        f"Left out, for time: {titles}. `remctl bench {' '.join(f'--suite {name}' for name in suites)}` measures that.",
    )


def _listed(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _given(config: RunConfig, batch: int | None, phases: tuple[str, ...]) -> Subject:
    """The configuration that was asked for."""
    return Subject(f"{config.preset}, {config.variant}, {config.game}", _with(config, _batches(batch)), phases)


def _halved(config: RunConfig, scale: Scale, batch: int | None) -> Subject:
    """The configuration that was asked for; reduced: with one layer of M and half of V's channels."""
    subject = _given(config, batch or PRECISION_BATCH[scale], ())
    if scale == "full":
        return subject
    given, groups = config.tokenizer.channels, config.tokenizer.num_groups
    channels = [width if width % (2 * groups) else width // 2 for width in given]
    changes = {"tokenizer.channels": channels, "world_model.num_layers": 1}
    return replace(subject, config=_with(subject.config, changes))


def _paper(scale: Scale, batch: int | None) -> list[Subject]:
    """Figures 1 (left) and 11."""
    phases = ("tokenizer", TRAINING, ROLLOUT, "controller")
    return [
        Subject("REM", _agent("rem", scale, batch), phases),
        Subject(VARIANTS["iris"].label, _agent("iris", scale, batch), phases),
        Subject(VARIANTS["iris_rem"].label, _agent("iris_rem", scale, batch), phases),
    ]


def _ablations(scale: Scale, batch: int | None) -> list[Subject]:
    """Figure 10."""
    names = ("rem", "no_pop", "no_latent_space")
    return [Subject(VARIANTS[n].label, _agent(n, scale, batch), (TRAINING, ROLLOUT, "controller")) for n in names]


def _components(scale: Scale, batch: int | None) -> list[Subject]:
    """Which part of POP gives what: prediction tokens, chunks, parallel states."""
    blocks = _agent("rem", scale, batch).world_model.sequence_blocks
    both, chunk = (TRAINING, ROLLOUT), "world_model.blocks_per_chunk"
    return [
        Subject("REM", _agent("rem", scale, batch), both),
        Subject("No POP", _agent("no_pop", scale, batch), both),
        Subject("One prediction token", _agent("shared_prediction_token", scale, batch), both),
        Subject("Sequential states", _agent("sequential_states", scale, batch), (TRAINING,)),
        Subject("Chunks of 1 block", _agent("rem", scale, batch, {chunk: 1}), (TRAINING,)),
        Subject("One chunk", _agent("rem", scale, batch, {chunk: blocks}), (TRAINING,)),
    ]


def _scaling(scale: Scale, batch: int | None) -> list[Group]:
    """One quantity at a time, the others as in the base; only M differs between the three."""
    base = {"imagined_steps": 2 if scale == "reduced" else 8, "batch_size": batch or SCALING_BATCH[scale]}
    made = []
    for axis, values in SCALED[scale].items():
        phases = (TRAINING, ROLLOUT) if axis in TRAINING_AXES else (ROLLOUT,)
        subjects = tuple(
            Subject(name, _sized(overrides, base | {axis: value}, scale, name), phases, value)
            for value in values
            for name, overrides in SEQUENCE_MODELS.items()
        )
        made.append(Group("scaling", subjects, axis))
    return made


SEQUENCE_MODELS: Mapping[str, Overrides] = {
    "POP": {},
    "Sequential RetNet": VARIANTS["no_pop"].overrides,
    "Transformer": VARIANTS["no_pop"].overrides | {"world_model.architecture": "transformer"},
}


def published_size(name: str, sizes: Mapping[str, int]) -> RunConfig:
    """One of SEQUENCE_MODELS in the published agent, with `tokens_per_obs` and `batch_size` as given."""
    return _sized(SEQUENCE_MODELS[name], {"imagined_steps": 8, **sizes}, "full", name)


def _sized(overrides: Overrides, sizes: Mapping[str, int], scale: Scale, name: str) -> RunConfig:
    horizon = sizes["imagined_steps"] + 2  # two blocks are context
    made = SCALING_BASE[scale] | overrides | _batches(sizes["batch_size"]) | {"imagination.horizon": horizon}
    if "tokens_per_obs" in sizes:
        made["tokenizer.grid_size"] = round(sizes["tokens_per_obs"] ** 0.5)
    if "num_layers" in sizes:
        made["world_model.num_layers"] = sizes["num_layers"]
    if name == "Transformer":  # IRIS' context, and as many imagined steps; a window that holds them all
        made |= {
            "world_model.context_blocks": 1,
            "imagination.horizon": horizon - 1,
            "world_model.sequence_blocks": max(10, horizon),
        }
    return build(made)


def _agent(variant: str, scale: Scale, batch: int | None, more: Overrides | None = None) -> RunConfig:
    """The published agent's variant, at this scale."""
    made = preset_overrides("paper", "Pong") | VARIANTS[variant].overrides | {"variant": variant} | (more or {})
    if scale == "reduced":
        horizon = REDUCED_HORIZON * (2 if variant == "iris" else 1)
        made |= REDUCED | {"imagination.horizon": horizon}
        batch = batch or REDUCED_BATCH
    return build(made | _batches(batch))


def _batches(batch: int | None) -> Overrides:
    parts = ("tokenizer", "world_model", "controller")
    return {} if batch is None else {f"{part}.training.batch_size": batch for part in parts}


def _with(config: RunConfig, overrides: Overrides) -> RunConfig:
    labels = {"preset": config.preset, "variant": config.variant, "game": config.game, "seed": config.seed}
    return build(keys(config) | labels | overrides)
