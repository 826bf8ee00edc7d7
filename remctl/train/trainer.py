"""The run: epochs as transactions, resume, tests, the final score.

An epoch is collect, train V, train M, train C, and every few epochs a test. Everything it changed is committed by one
rename of a checkpoint folder; metrics, episodes and the replay's shard are written before that and dropped at the next
start if the commit never came. Randomness is a function of (seed, epoch, phase), so there is no generator to save. A test
may be played while the next epochs train, and is then logged with a later one: `remctl.train.overlap`.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from remctl.config import RunConfig, config_hash
from remctl.envs import make_env
from remctl.errors import MachineError, UserError
from remctl.games import kind
from remctl.progress import Reporter
from remctl.replay.buffer import ReplayBuffer
from remctl.replay.store import load_shard, save_shard
from remctl.runs.layout import RunFolder
from remctl.runs.metrics import OF_EPOCH, MetricsLog
from remctl.train import checkpoint
from remctl.train.acting import Policy
from remctl.train.build import build_agent, build_image_loss
from remctl.train.captured import accelerate, is_fast
from remctl.train.collector import Collector, Record
from remctl.train.evaluate import Episode, play
from remctl.train.learner import Learner
from remctl.train.overlap import RunTests
from remctl.train.phases import Metrics, num_steps, train_controller, train_tokenizer, train_world_model
from remctl.train.remaining import ENCODE, guess_episodes, measured, work_left
from remctl.train.restoring import Restorable, restorable
from remctl.train.seeding import Randomness, derive_seed
from remctl.train.testing import Findings, controller_trained


@dataclass
class Clock:
    """Seconds per phase over the whole run, interruptions left out."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, phase: str, metrics: Metrics | None = None) -> Iterator[None]:
        """Adds to the run's total, and writes `<phase>/wall_s` of the epoch."""
        begin = time.perf_counter()
        yield
        spent = time.perf_counter() - begin
        if metrics is not None:
            metrics[f"{phase}/wall_s"] = spent
        self.seconds[phase] = self.seconds.get(phase, 0.0) + spent


class Trainer:
    """One run in one folder on one device. `run()` goes from the last complete epoch to the end of training."""

    def __init__(
        self, config: RunConfig, run: RunFolder, device: torch.device, reporter: Reporter, log: MetricsLog
    ) -> None:
        self.config, self.folder, self.device = config, run, device
        self.reporter, self.log = reporter, log
        self.clock = Clock()
        self.epoch = 0  # the last complete one
        env = make_env(config.game, config.environment, training=True, seed=self._env_seed())
        self.collector = Collector(env, config.environment.time_limit_ends)
        self.agent = build_agent(config, env.num_actions, device)
        self.config = config = self.agent.config
        self.image_loss = build_image_loss(config, device, reporter.log)
        self.buffer = ReplayBuffer(
            capacity(config), config.environment.frame_size, config.tokenizer.tokens_per_obs, device
        )
        self.learner = Learner(self.agent, self.image_loss, self.buffer)
        self.num_threads_before: int | None = None  # that computed the checkpoint
        self.precisions: tuple[str, ...] = ()  # that the epochs until now were computed in, the last one last
        self._form_before: str | None = None  # of the steps that led to the checkpoint
        self._says_clipped = False  # met since this start
        self._may_speed_up = is_fast(config, device)
        self.tests = RunTests(self.agent, self.image_loss, run, env.num_actions, reporter)

    def _env_seed(self) -> int:
        if self.config.environment.seeding == "unseeded":
            return time.time_ns() % 2**31
        return derive_seed(self.config.seed, "train env") % 2**31

    def resume(self, found: Restorable | None = None) -> None:
        """Continue from what was `found` to be restorable, None: which is looked for now; drop what came after it.

        Raises UserError for a checkpoint of another configuration, MachineError for a run whose checkpoints or replay
        are lost; nothing is dropped before everything was read.
        """
        loaded, is_newest = found or restorable(self.folder, self.config, self.reporter.log)
        logged = {entry.get("epoch") for entry in self.log.entries()}
        if not loaded and len(logged) > 1:  # one entry may stand without: it is written just before its checkpoint
            raise MachineError(
                f"{self.folder.path} has {len(logged)} epochs in metrics.jsonl and no checkpoint to go on from: restore "
                "its checkpoints folder from a copy, or move the run away to train it from the start"
            )
        self.epoch = loaded.epoch if loaded else 0
        lost = sorted(set(range(1, self.epoch + 1)) - logged)
        if lost:
            self.reporter.log(f"metrics.jsonl lacks epochs {lost[0]}-{lost[-1]}: they stay missing, training goes on")
        if loaded:
            self._restore(loaded)
        if not is_newest:  # its epoch's shard is about to be written again, and would not be the one it knows
            checkpoint.drop_after(self.folder, self.epoch)
        self.log.rewind(self.epoch)
        entries = self.log.entries()
        self.tests.resume(self.epoch, entries)
        self.reporter.pace.measured |= measured(self.config, entries, not self.tests.overlapped)
        self._look_ahead()

    def _restore(self, loaded: checkpoint.Checkpoint) -> None:
        self.agent.load_state_dict(loaded.agent)
        for name, optimizer in self.learner.optimizers.items():
            optimizer.load_state_dict(loaded.trainer["optimizers"][name])
        self.collector.set_state(loaded.trainer["collector"], self.device)
        self.clock.seconds = dict(loaded.trainer["wall_s"])
        self.num_threads_before = loaded.trainer.get("num_threads")
        self.precisions = loaded.precisions
        self._form_before = loaded.trainer.get("form", "plain")
        for epoch in range(1, min(self.epoch, self.config.collection.last_epoch) + 1):
            self.buffer.append(load_shard(self.folder, epoch))
        self.reporter.log(f"resuming after epoch {self.epoch} of {self.config.training.num_epochs}")

    def _speed_up(self) -> None:
        """Before the first training step, and not while a run starts: asking for a compiler takes seconds."""
        if self._may_speed_up:
            with self.reporter.doing("compiling"):
                accelerate(self.learner, self.reporter.log, self._form_before, self.epoch, self.reporter.stop.check)
            self._may_speed_up = False
        before, now = self._form_before, self.learner.form
        if before not in (None, now):
            self.reporter.log(f"resuming with {now} steps after {before} ones: other roundings and dropout masks")
        self._form_before = now

    def _look_ahead(self) -> None:
        """Tell the reporter what is still to be done after the last complete epoch."""
        self.reporter.pace.work = work_left(self.config, self.epoch, not self.tests.overlapped)
        guess_episodes(self.config, self.reporter.pace)

    @contextmanager
    def phase(self, name: str, metrics: Metrics | None = None) -> Iterator[None]:
        """Measure a phase of the run, and show its name while it lasts."""
        with self.clock.measure(name, metrics), self.reporter.doing(name.replace("_", " ")):
            yield

    def run(self) -> None:
        """All remaining epochs."""
        total = self.config.training.num_epochs
        self.reporter.epoch_bar(total, self.epoch)
        with closing(self.tests):
            self.tests.begin()
            for epoch in range(self.epoch + 1, total + 1):
                metrics = self.run_epoch(epoch)
                self._look_ahead()
                self.reporter.epoch_done()
                self.reporter.log(summary(epoch, total, metrics))

    def run_epoch(self, epoch: int) -> Metrics:
        """One transaction."""
        metrics: Metrics = {}
        records: list[Record] = []
        begin = time.perf_counter()
        if epoch <= self.config.collection.last_epoch:
            records += self._collect(epoch, metrics)
        self._speed_up()
        try:
            self._train(epoch, metrics)
        except MachineError:
            self.reporter.stop.check()  # a signal to the whole process group ends a compiler too
            raise
        refuse_divergence(epoch, metrics)
        tests = self._test(epoch, metrics)
        metrics["epoch/wall_s"] = time.perf_counter() - begin
        with self.reporter.doing("saving"), self.reporter.stop.finishing():
            self._commit(epoch, metrics, records, tests)
        self.tests.committed(epoch)
        return metrics

    def _collect(self, epoch: int, metrics: Metrics) -> list[Record]:
        c = self.config.collection
        policy = Policy(
            self.agent,
            c.untrained_policy == "controller" or controller_trained(self.config, epoch - 1),
            c.temperature,
            c.epsilon,
            c.executed_action_to_controller,
        )
        random = Randomness(self.config.seed, epoch, "collect")
        count = c.steps_per_epoch + c.initial_steps * (epoch == 1)
        with self.phase("collect", metrics):
            if c.controller_memory == "burned_in" and policy.decides:
                self.collector.remind(policy, self.buffer.last_frames(self.config.imagination.burn_in_frames))
            seeded = self.config.environment.seeding == "seeded"
            steps, games = self.collector.collect(count, policy, random, self.reporter.track, seeded)
            self.buffer.append(steps)
            save_shard(self.folder, epoch, steps)
        guess_episodes(self.config, self.reporter.pace, games)
        if not self._says_clipped and has_clipped(steps.rewards):
            self._says_clipped = True
            if kind(self.config.game) == "gym":  # on Atari clipping is standard
                self.reporter.log(
                    f"{self.config.game} returns rewards other than -1, 0 and 1: REM learns only their sign"
                )
        metrics["collect/env_steps"] = self.buffer.size
        metrics["collect/env_steps_per_s"] = count / metrics["collect/wall_s"]
        if games:
            metrics["collect/return_mean"] = sum(float(g["return"]) for g in games) / len(games)
        return games

    def _train(self, epoch: int, metrics: Metrics) -> None:
        track = self.reporter.track
        if num_steps(self.config.tokenizer.training, epoch):
            with self.phase("tokenizer", metrics):
                metrics |= train_tokenizer(self.learner, epoch, track)
        if num_steps(self.config.world_model.training, epoch) or num_steps(self.config.controller.training, epoch):
            num_stale = self.buffer.size - self.buffer.num_tokenized
            with self.phase("encode", metrics), self.reporter.counting(ENCODE, num_stale) as advance:
                self.buffer.refresh_tokens(self.agent.encode, advance)
        if num_steps(self.config.world_model.training, epoch):
            with self.phase("world_model", metrics):
                metrics |= train_world_model(self.learner, epoch, track)
        if num_steps(self.config.controller.training, epoch):
            with self.phase("controller", metrics):
                metrics |= train_controller(self.learner, epoch, track)

    def _test(self, epoch: int, metrics: Metrics) -> list[Findings]:
        if not self.tests.any_logged_with(epoch):
            return []
        with self.phase("test", metrics):
            return self.tests.tested(epoch)

    def play(self, kind: str, epoch: int, num_episodes: int) -> list[Episode]:
        """Test episodes of the agent as it is; the steps of as many as a test has are kept."""
        random, num_kept = Randomness(self.config.seed, epoch, kind), self.config.evaluation.num_episodes
        with self.reporter.counting(f"{kind} episodes", num_episodes) as advance:
            trained = controller_trained(self.config, epoch)
            return play(self.agent, num_episodes, random, advance, trained, num_kept)

    def _commit(self, epoch: int, metrics: Metrics, records: list[Record], tests: list[Findings]) -> None:
        """The newest test is part of the epoch's entry of the log; one of an earlier epoch beside it has its own."""
        metrics["memory_peak_mb"] = peak_memory_mb(self.device)
        metrics |= {"time/unix_s": time.time(), "time/training_s": sum(self.clock.seconds.values())}
        self.log.append_episodes(epoch, records + [record for test in tests for record in test.episodes])
        for test in tests[:-1]:
            self.log.append(epoch, test.metrics)
        for test in tests[-1:]:
            metrics |= test.metrics
        self.log.append(epoch, metrics)
        agent, trainer = self.agent.state_dict(), self._state()
        now = self.config.runtime.precision
        self.precisions = (*(before for before in self.precisions if before != now), now)
        hashed = config_hash(self.config)
        checkpoint.save(self.folder, epoch, hashed, agent, trainer, self.tests.needed, self.precisions)
        self.epoch = epoch

    def _state(self) -> dict[str, Any]:
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.learner.optimizers.items()},
            "collector": self.collector.get_state(),
            "wall_s": dict(self.clock.seconds),
            "num_threads": torch.get_num_threads(),
            "form": self.learner.form,
        }


def refuse_divergence(epoch: int, metrics: Metrics) -> None:
    """UserError where a loss or a gradient is not finite: nothing trained from then on would mean anything."""
    bad = [
        name for name, value in metrics.items() if name.endswith(("loss", "gradient_norm")) and not math.isfinite(value)
    ]
    if bad:
        component = bad[0].split("/")[0]
        raise UserError(
            f"training diverged in epoch {epoch}: {bad[0]} is not finite; lower {component}.training.learning_rate "
            "(another configuration, so with another --name); the epochs before stand"
        )


def has_clipped(rewards: np.ndarray) -> bool:
    """Return whether one of rewards (S,) is not -1, 0 or 1, so that M, which predicts signs, loses something."""
    return not bool(np.isin(rewards, (-1, 0, 1)).all())


def capacity(config: RunConfig) -> int:
    """Steps a whole run collects."""
    epochs = min(config.collection.last_epoch, config.training.num_epochs)
    return config.collection.initial_steps + epochs * config.collection.steps_per_epoch


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process so far: allocated on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def summary(epoch: int, total: int, metrics: Metrics) -> str:
    """One line for people."""
    shown = {
        "V": "tokenizer/reconstruction_loss",
        "M": "world_model/observation_loss",
        "C return": "controller/imagined_return",
        "entropy": "controller/policy_entropy",
        "train return": "collect/return_mean",
        "test return": "test/return_mean",
    }
    parts = [f"{label} {metrics[name]:.3g}" for label, name in shown.items() if name in metrics]
    if metrics.get(OF_EPOCH, epoch) != epoch:
        parts[-1] += f" (of epoch {metrics[OF_EPOCH]:.0f})"
    return f"epoch {epoch}/{total}  {'  '.join(parts)}  {metrics['epoch/wall_s']:.1f} s"
