"""Which colour of the palette an algorithm has: the same for the same agent in every report.

The paper's agents and our variants have theirs for good, whoever else is there; ours and the published of one agent share
it, and marker and line tell them apart. Other names take what is left, in the order of the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count

from remctl.report.results import Algorithm

NUM_COLORS = 7
# Colour is the index modulo NUM_COLORS: those that are compared most often differ.
AGENTS = {
    "rem": 0,
    "no_pop": 1,
    "separate_embeddings": 2,
    "tokenizer_4x4": 3,
    "no_latent_space": 4,
    "no_action_inputs": 5,
    "iris": 6,
    "simple": 9,
    "twm": 10,
    "storm": 11,
    "dreamerv3": 12,
    "iris_rem": 16,
    "frames_only": 17,
    "shared_prediction_token": 19,
    "sequential_states": 20,
}
_ALIASES = {"iris (with rem's configuration)": "iris_rem", "iris (as published)": "iris", "rem (as published)": "rem"}


def agent_of(name: str) -> str | None:
    """The agent that an algorithm's name stands for, whatever experiment or file it is of; None for other names."""
    last = name.rpartition("/")[2].casefold()
    agent = _ALIASES.get(last, last)
    return agent if agent in AGENTS else None


def coloured(algorithms: Sequence[Algorithm]) -> list[Algorithm]:
    """With their colours. Of several of ours that are one agent the first has its colour."""
    colors = _fixed(algorithms)
    with_runs = {a.name for a in algorithms if a.origin != "published"}
    for algorithm in algorithms:
        if algorithm.name not in colors:
            colors[algorithm.name] = _free(colors, with_runs)
    return [replace(a, color=colors[a.name]) for a in algorithms]


def _fixed(algorithms: Sequence[Algorithm]) -> dict[str, int]:
    fixed = {}
    first: set[str] = set()
    for algorithm in algorithms:
        agent = agent_of(algorithm.name)
        if agent is None or (algorithm.origin != "published" and agent in first):
            continue
        fixed[algorithm.name] = AGENTS[agent]
        first |= {agent} if algorithm.origin != "published" else set()
    return fixed


def _free(colors: Mapping[str, int], with_runs: Collection[str]) -> int:
    """An index that nobody has, of the colour that the fewest have, first among those with runs of their own."""
    ours = Counter(index % NUM_COLORS for name, index in colors.items() if name in with_runs)
    every = Counter(index % NUM_COLORS for index in colors.values())
    color = min(range(NUM_COLORS), key=lambda c: (ours[c], every[c], c))
    return next(index for index in count(color, NUM_COLORS) if index not in colors.values())
