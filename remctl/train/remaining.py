"""What a run still has to do, counted in the steps of its loops, and how long a step took so far.

Loops bear the names under which `remctl.progress.Reporter` shows them. Evaluation counts episodes, encoding frames.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from remctl.config import RunConfig
from remctl.pace import Pace
from remctl.train.schedule import is_due, num_steps

if TYPE_CHECKING:
    from remctl.train.collector import Record

COLLECT, WARM_UP, ENCODE, TEST, FINAL = "collect", "tokenizer warm-up", "encode", "test episodes", "final episodes"
ENV_STEP = "environment step"  # of collecting without networks; no loop of its own
TRAINED = {"tokenizer": "tokenizer", "world_model": "world model", "controller": "controller"}
PHASES = {**{loop: phase for phase, loop in TRAINED.items()}, COLLECT: "collect", ENCODE: "encode", TEST: "test"}
Work = Mapping[str, float]


def work_left(config: RunConfig, epochs_done: int, tests_in_turn: bool = True) -> Work:
    """Return the steps of each loop after `epochs_done` complete epochs, a warm-up at its longest, to the run's end."""
    work: Counter[str] = Counter({FINAL: config.evaluation.final_episodes})
    for epoch in range(epochs_done + 1, config.training.num_epochs + 1):
        work.update(epoch_work(config, epoch, tests_in_turn))
    return work


def epoch_work(config: RunConfig, epoch: int, tests_in_turn: bool = True) -> dict[str, int]:
    """Return the steps of each loop in `epoch` (from 1)."""
    v, e = config.tokenizer, config.evaluation
    trained = {loop: num_steps(getattr(config, name).training, epoch) for name, loop in TRAINED.items()}
    warms_up = v.warmup != "none" and epoch == v.training.start_after_epoch + 1
    return trained | {
        COLLECT: _collected(config, epoch) - _collected(config, epoch - 1),
        WARM_UP: v.warmup_steps * warms_up,
        ENCODE: _encoded(config, epoch),
        TEST: e.num_episodes * (tests_in_turn and is_due(config, epoch)),
    }


def _collected(config: RunConfig, epoch: int) -> int:
    """Steps in the replay at the end of `epoch`."""
    c = config.collection
    return (c.initial_steps + c.steps_per_epoch * min(epoch, c.last_epoch)) if epoch > 0 else 0


def _encodes(config: RunConfig, epoch: int) -> bool:
    return any(num_steps(getattr(config, name).training, epoch) for name in ("world_model", "controller"))


def _encoded(config: RunConfig, epoch: int) -> int:
    """Frames: all stored ones where V has changed since they were encoded, else the new ones."""
    if not _encodes(config, epoch):
        return 0
    before = next((e for e in range(epoch - 1, 0, -1) if _encodes(config, e)), 0)
    changed = any(num_steps(config.tokenizer.training, e) for e in range(before + 1, epoch + 1))
    return _collected(config, epoch) - (0 if changed else _collected(config, before))


def measured(config: RunConfig, entries: Iterable[Mapping[str, Any]], tests_in_turn: bool = True) -> dict[str, float]:
    """Return the seconds of a step of each loop from the log of a run, of the last epoch that has it."""
    found = {}
    for entry in entries:
        epoch = entry.get("epoch")
        if not isinstance(epoch, int):
            continue
        work = epoch_work(config, epoch, tests_in_turn)
        work["tokenizer"] += int(entry.get("tokenizer/warmup_steps") or 0)  # part of the same phase's time
        for loop, phase in PHASES.items():
            wall_s = entry.get(f"{phase}/wall_s")
            if wall_s and work[loop]:
                found[loop] = wall_s / work[loop]
    return found


def guess_episodes(config: RunConfig, pace: Pace, games: Sequence[Record] = ()) -> None:
    """Guess the seconds of a test episode from the length of `games` just collected, and of a final one from a test's.

    Side by side, environments share the networks' time: an episode's step takes about as long as the quickest collection,
    which was played at random. A test with fewer environments than the final one says little about it.
    """
    if COLLECT in pace.measured:
        pace.guessed[ENV_STEP] = min(pace.measured[COLLECT], pace.guessed.get(ENV_STEP, math.inf))
    if games and ENV_STEP in pace.guessed:
        num_steps_each = sum(float(game["length_steps"]) for game in games) / len(games)
        pace.guessed[TEST] = pace.guessed[ENV_STEP] * num_steps_each
    e = config.evaluation
    alike = min(e.num_envs, e.num_episodes) == min(e.num_envs, e.final_episodes)
    episode_s = pace.step_s(TEST) if alike else pace.guessed.get(TEST, pace.measured.get(TEST))
    if episode_s is not None:
        pace.guessed[FINAL] = episode_s
