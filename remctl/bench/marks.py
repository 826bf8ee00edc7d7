"""What the figures of a benchmark share: names, colours, units, and the sentences on where the numbers come from."""

from __future__ import annotations

from collections.abc import Sequence

from remctl.bench.result import Case, Result
from remctl.drawing import COLORS, shown

MAX_ROWS = 40  # of a panel; a figure of more nobody reads
MIN_SECONDS, MAX_SECONDS = 1e-12, 1e9  # no clock tells less; 30 years
PHASES = {  # in the order of an epoch
    "collect": "Collecting",
    "tokenizer": "Tokenizer",
    "encode": "Encoding",
    "world_model": "World model",
    "imagination": "Imagination alone",
    "controller": "Imagination and controller",
    "test": "Test",
    "epoch": "Training steps of an epoch",
}
# As in the report: IRIS with REM's configuration and the Transformer of REM's size share one, No POP and its retention too.
KNOWN_COLORS = {
    "rem": 0,
    "pop": 0,
    "no pop": 1,
    "sequential retnet": 1,
    "iris": 6,
    "iris, rem's configuration": 2,
    "transformer": 2,
    "no latent-space c (two factors)": 4,
    "one prediction token": 5,
    "sequential states": 3,
    "chunks of 1 block": 2,
    "one chunk": 6,
}


def phase_name(phase: str) -> str:
    """As people read it."""
    return PHASES.get(phase, shown(phase))


def colors(result: Result) -> dict[str, str]:
    """Colour of every name of the cases: the same in every benchmark for the names that are known."""
    names = dict.fromkeys(case.name for case in result.cases)
    indices = {name: KNOWN_COLORS[name.casefold()] for name in names if name.casefold() in KNOWN_COLORS}
    for name in names:
        indices.setdefault(name, min(range(len(COLORS)), key=lambda i: (list(indices.values()).count(i), -i)))
    return {name: COLORS[index] for name, index in indices.items()}


def is_drawn(case: Case) -> bool:
    """Whether its times are ones that a clock can give."""
    return MIN_SECONDS < case.spread.low <= case.median <= case.spread.high < MAX_SECONDS


def whiskers(cases: Sequence[Case]) -> str:
    """How much the whiskers hold, as a sentence."""
    lowest = min(c.spread.coverage for c in cases)
    rounds = sorted({len(c.seconds) for c in cases})
    num = str(rounds[0]) if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    return f"Whiskers: hold the true median with {_percent(lowest)} or more ({num} round{'s' * (rounds[-1] != 1)})."


def _percent(share: float) -> str:
    return f"{min(share, 1.0) * 100:.3g}%"


def measured_on(result: Result) -> str:
    """Where, with how many threads and at which scale, as sentences."""
    device = result.device
    threads = f"{device.num_threads} thread{'s' * (device.num_threads != 1)}"
    cut_off = "" if result.complete else " Cut off before its end."
    return f"Measured on {shown(device.name, 60)}, {threads}, scale {shown(result.scale)}.{cut_off}"
