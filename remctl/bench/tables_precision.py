"""The tables of the suite precision: losses in fp32 and in bf16, and how far what they compute agrees."""

from __future__ import annotations

from remctl.bench.result import PrecisionEffect, Result, TrainedLoss
from remctl.bench.table import BenchTable, words

VERDICT = (
    "bf16 exceeds the seeds: of one seed at least, bf16 - fp32 is larger than the largest difference between two seeds "
    "in fp32."
)
COMPARED = (
    "Gradients of all parameters, on one batch: V's and M's as initialised, M's without dropout and in the tokens of fp32's "
    "V. Tokens: of held-out frames, after training."
)


def precision(result: Result) -> list[BenchTable]:
    """For each measured configuration its losses with a verdict, and its comparisons."""
    return [table for effect in result.precision for table in (_losses(result, effect), _comparisons(effect))]


def _losses(result: Result, effect: PrecisionEffect) -> BenchTable:
    header = ("component", "fp32", "bf16 - fp32", "between seeds", "verdict")
    rows = tuple((words(name), *_row(loss)) for name, loss in effect.losses.items())
    batches = ", ".join(f"{size} ({words(name)})" for name, size in effect.batch_sizes.items())
    seeds = ", ".join(map(str, effect.seeds))
    notes = (
        f"{effect.label}: mean loss of the last of {effect.num_steps} steps, seeds {seeds}; batches of "
        f"{batches} from {effect.num_frames:,} frames.",
        f"{result.device.name}; {result.code}.",
        VERDICT,
        *result.scaled,
    )
    return BenchTable("precision", "precision: what bf16 does to training", header, rows, notes)


def _row(loss: TrainedLoss) -> tuple[str, ...]:
    verdict = "bf16 exceeds the seeds" if loss.exceeds else "within the seeds"
    shown = (
        "  ".join(f"{value:{sign}.4f}" for value in values)
        for sign, values in (("", loss.fp32), ("+", loss.differences))
    )
    return (*shown, f"{loss.between_seeds:.4f}", verdict)


def _comparisons(effect: PrecisionEffect) -> BenchTable:
    header = ("fp32 against bf16", *(f"seed {seed}" for seed in effect.seeds))
    rows = tuple((what, *(f"{value:.4f}" for value in values)) for what, values in effect.comparisons.items())
    return BenchTable("precision_alike", "precision: how far the two agree", header, rows, (COMPARED,))
