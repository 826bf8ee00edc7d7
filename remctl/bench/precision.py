"""Suite precision: what bf16 does to training.

With each seed V, M and C are trained twice, in fp32 and in bf16, from the same weights, with the same batches of the same
recorded frames, the same masks and random numbers. Both M learn from the tokens of fp32's V, both C in the imagination of
fp32's M, so that a difference is the component's own. What the precision changes is set against what the seed changes.
Nothing is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from remctl.bench.machine import Machine
from remctl.bench.measure import Measured, check_once
from remctl.bench.result import PrecisionEffect, TrainedLoss
from remctl.bench.suites import Group
from remctl.bench.whole_run import num_actions
from remctl.config import Precision, RunConfig, build, config_hash
from remctl.envs import make_env
from remctl.precision import native_precision
from remctl.rem.tokenizer import to_model_range
from remctl.replay.buffer import ENCODE_BATCH, ReplayBuffer, Steps
from remctl.replay.sampling import sample_segments
from remctl.train.acting import Policy
from remctl.train.build import Agent, build_agent, build_image_loss
from remctl.train.collector import Collector
from remctl.train.learner import Learner
from remctl.train.phases import Track, train_controller, train_tokenizer, train_world_model
from remctl.train.seeding import Randomness

SEEDS = (0, 1, 2)
NUM_FRAMES, NUM_HELD_OUT = 2000, 2 * ENCODE_BATCH
NUM_EPOCHS, STEPS_PER_EPOCH = 5, 20  # losses are the means of the last epoch
PHASES = {"tokenizer": train_tokenizer, "world_model": train_world_model, "controller": train_controller}
BOTH: tuple[Precision, Precision] = ("fp32", "bf16")
EMULATED = "bf16 is emulated here: the numbers are those of other machines, but it takes many times as long"


def measure_precision(
    group: Group, machine: Machine, rounds: int, found: Measured, log: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Adds the effect on the group's configuration to `found`; `rounds` of it would all be equal, so there is one.

    `check` is called before every step, and may raise Interrupted to leave; then nothing is added.
    """
    (subject,) = group.subjects
    config = _short(subject.config)
    if native_precision(machine.device) == "fp32":
        log(EMULATED)
    log(f"precision: {len(SEEDS)} seeds, {NUM_EPOCHS * STEPS_PER_EPOCH} steps of V, M and C each, fp32 and bf16")
    agent, track = build_agent(config, num_actions(config), machine.device), _tracked(check)
    check_once(subject.name, agent, found)
    steps, pairs = record(agent, track), list[Pair]()
    for seed in SEEDS:
        pairs.append(Pair(build({"seed": seed}, over=config), steps, machine.device, log))
        pairs[-1].train(track)
        log(f"seed {seed} is done")
    found.precision.append(
        PrecisionEffect(
            label=subject.name,
            config_hash=config_hash(subject.config),
            seeds=SEEDS,
            num_frames=NUM_FRAMES,
            num_steps=NUM_EPOCHS * STEPS_PER_EPOCH,
            batch_sizes={name: getattr(config, name).training.batch_size for name in PHASES},
            losses={n: TrainedLoss(**{p: tuple(pair.losses[p][n] for pair in pairs) for p in BOTH}) for n in PHASES},
            comparisons={what: tuple(pair.found[what] for pair in pairs) for what in pairs[0].found},
        )
    )


def _short(config: RunConfig) -> RunConfig:
    """The configuration with all components trained from the first of its short epochs on."""
    made: dict[str, object] = {}
    for name in PHASES:
        training = f"{name}.training"
        made |= {f"{training}.start_after_epoch": 0, f"{training}.stop_after_epoch": None}
        made |= {f"{training}.steps_per_epoch": STEPS_PER_EPOCH, f"{training}.first_epoch_extra_steps": 0}
    return build(made, over=config)


def record(agent: Agent, track: Track) -> Steps:
    """NUM_FRAMES steps of random play to train on, then NUM_HELD_OUT more."""
    config, policy = agent.config, Policy(agent, decides=False, temperature=1.0)
    with closing(make_env(config.game, config.environment, training=True, seed=0)) as env:
        collector = Collector(env, config.environment.time_limit_ends)
        return collector.collect(NUM_FRAMES + NUM_HELD_OUT, policy, Randomness(0, 0, "collect"), track)[0]


def _tracked(check: Callable[[], None]) -> Track:
    def track(steps: Iterable[int], name: str, total: int) -> Iterable[int]:
        for step in steps:
            check()
            yield step

    return track


class Pair:
    """Two agents of one seed, which differ in precision.

    After `train`, `losses`: by precision and component; `found`: how far what they compute agrees, by what it is.
    """

    def __init__(self, config: RunConfig, steps: Steps, device: torch.device, log: Callable[[str], None]) -> None:
        self.random, self.held_out = (
            Randomness(config.seed, 0, "gradients"),
            torch.from_numpy(steps.frames[NUM_FRAMES:]),
        )
        self.losses: dict[Precision, dict[str, float]] = {p: {} for p in BOTH}
        self.found: dict[str, float] = {}
        self.learners: dict[Precision, Learner] = {}
        for precision in BOTH:
            own = config.at_precision(precision)
            buffer = ReplayBuffer(NUM_FRAMES, config.environment.frame_size, config.tokenizer.tokens_per_obs, device)
            buffer.append(steps.first_steps(NUM_FRAMES))
            agent = build_agent(own, num_actions(config), device)
            self.learners[precision] = Learner(agent, build_image_loss(own, device, log), buffer)

    def train(self, track: Track) -> None:
        """Train both agents, comparing them on the way."""
        self._compare("V's gradient, untrained", [self._tokenizer_gradient(self.learners[p]) for p in BOTH])
        self._train("tokenizer", track)
        fp32, bf16 = (self.learners[p].agent for p in BOTH)
        read = self._read(fp32)
        self.found["tokens read alike by V of fp32 and V of bf16"] = _alike(read, self._read(bf16))
        self.found["tokens read alike by V of fp32 in fp32 and in bf16"] = _alike(read, self._read(_at(fp32, "bf16")))
        bf16.tokenizer.load_state_dict(fp32.tokenizer.state_dict())
        for learner in self.learners.values():
            learner.buffer.refresh_tokens(fp32.encode)
        self._compare("M's gradient, untrained", [self._world_model_gradient(_at(fp32, p)) for p in BOTH])
        self._train("world_model", track)
        bf16.world_model.load_state_dict(fp32.world_model.state_dict())
        self._train("controller", track)

    def _train(self, name: str, track: Track) -> None:
        for precision, learner in self.learners.items():
            metrics = [PHASES[name](learner, epoch, track) for epoch in range(1, NUM_EPOCHS + 1)]
            self.losses[precision][name] = metrics[-1][f"{name}/loss"]

    def _compare(self, what: str, gradients: Sequence[Tensor]) -> None:
        """Gradients in fp32 and in bf16, each of all parameters (any shape, flat)."""
        exact, rounded = (gradient.double() for gradient in gradients)
        self.found[f"{what}: difference over norm"] = ((rounded - exact).norm() / exact.norm()).item()
        self.found[f"{what}: cosine"] = F.cosine_similarity(rounded, exact, dim=0).item()

    def _read(self, agent: Agent) -> Tensor:
        return torch.cat([agent.encode(frames) for frames in self.held_out.split(ENCODE_BATCH)])

    def _tokenizer_gradient(self, learner: Learner) -> Tensor:
        """Of V's loss on a batch of held-out frames."""
        agent, image_loss = learner.agent, learner.image_loss
        frames = self.held_out[: agent.config.tokenizer.training.batch_size].to(agent.device)
        image_loss.train()
        self.random.seed_global("dropout of LPIPS")
        with agent.autocast():
            loss, _ = agent.tokenizer.loss(to_model_range(frames), image_loss)
        image_loss.eval()
        return _gradient(loss, agent.tokenizer)

    def _world_model_gradient(self, agent: Agent) -> Tensor:
        """Of M's loss, without dropout, on a batch of segments in the tokens of fp32's V."""
        config, buffer = agent.config, self.learners["fp32"].buffer
        shape = (1, config.world_model.training.batch_size)
        (starts,) = sample_segments(buffer.episodes, shape, config.min_segment_blocks, self.random.numpy("segments"))
        with agent.autocast():
            segments = buffer.segments(starts, config.world_model.sequence_blocks)
            loss, _ = agent.world_model.loss(segments, agent.tokenizer.code_vectors)
        return _gradient(loss, agent.world_model)


def _at(agent: Agent, precision: Precision) -> Agent:
    """The same weights, computed with in `precision`."""
    return replace(agent, config=agent.config.at_precision(precision))


def _gradient(loss: Tensor, module: nn.Module) -> Tensor:
    """Of all parameters in one vector."""
    parts = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def _alike(a: Tensor, b: Tensor) -> float:
    return (a == b).float().mean().item()
