"""Training phases: schedules, optimiser groups, the warm-up, one step at the paper's size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from remctl.config import RunConfig, TrainingPhase, resolve
from remctl.progress import Reporter
from remctl.rem import perceptual
from remctl.rem.perceptual import LPIPS, PerceptualLoss
from remctl.rem.tokenizer import to_model_range
from remctl.replay.buffer import ReplayBuffer, Steps
from remctl.stopping import StopFlag
from remctl.train import build, learner, phases
from remctl.train.build import (
    Agent,
    build_agent,
    build_image_loss,
    build_optimizer,
    build_optimizers,
    lpips_options,
)
from remctl.train.estimate import announce, measure
from remctl.train.heldout import judge_tokenizer
from remctl.train.learner import Learner, optimize, world_model_step
from remctl.train.phases import (
    median_image_error,
    num_steps,
    steps_left,
    train_controller,
    train_tokenizer,
    train_world_model,
)
from remctl.train.remaining import work_left
from remctl.train.seeding import Randomness
from remctl.weights import lpips_shapes
from tests.tiny import TINY
from tests.train.learners import random_lpips_weights

CPU = torch.device("cpu")


def no_track(steps, name, total):
    return steps


def no_check() -> None: ...


def make_buffer(config: RunConfig, count: int = 64) -> ReplayBuffer:
    rng, size = np.random.default_rng(0), config.environment.frame_size
    buffer = ReplayBuffer(count, size, config.tokenizer.tokens_per_obs, CPU)
    frames = rng.integers(256, size=(count, size, size, 3), dtype=np.uint8)
    buffer.append(
        Steps(
            frames,
            rng.integers(3, size=count),
            np.zeros(count, np.float32),
            np.zeros(count, bool),
            np.arange(count) % 16 == 0,
        )
    )
    return buffer


def make_agent(*sets: str, game: str = "Catch", preset: str = "quick") -> Agent:
    return build_agent(resolve(game, preset, sets=sets), 3, CPU)


class Phases:
    """An agent with its optimisers, its image loss and a replay, of which each phase can be trained."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.buffer = agent, make_buffer(agent.config)
        self.learner = Learner(agent, build_image_loss(agent.config, CPU, print), self.buffer)

    def train(self, name: str, epoch: int) -> phases.Metrics:
        self.buffer.refresh_tokens(self.agent.encode)
        train = {"tokenizer": train_tokenizer, "world_model": train_world_model, "controller": train_controller}
        return train[name](self.learner, epoch, no_track)


def test_components_train_in_their_epochs_only() -> None:
    phase = TrainingPhase(
        start_after_epoch=5, stop_after_epoch=8, steps_per_epoch=10, first_epoch_extra_steps=7, batch_size=1,
        learning_rate=1, weight_decay=0, gradient_clip=1,
    )  # fmt: skip
    assert [num_steps(phase, e) for e in (1, 5, 6, 7, 8, 9)] == [0, 0, 17, 10, 10, 0]
    config = resolve("Pong")
    first = {
        n: next(e for e in range(600) if num_steps(getattr(config, n).training, e))
        for n in ("tokenizer", "world_model", "controller")
    }
    assert first == {"tokenizer": 6, "world_model": 26, "controller": 51}


def test_m_decays_matrices_only_and_v_and_c_everything() -> None:
    agent = make_agent(*TINY)
    optimizers = build_optimizers(agent)
    plain = {id(p) for g in optimizers["world_model"].param_groups if g["weight_decay"] == 0 for p in g["params"]}
    for name, parameter in agent.world_model.named_parameters():
        spared = name.endswith("bias") or "norm" in name or "embedding" in name
        assert (id(parameter) in plain) is spared, name
    for name in ("tokenizer", "controller"):
        assert [g["weight_decay"] for g in optimizers[name].param_groups] == [0.01]
    for name, optimizer in optimizers.items():
        trained = {id(p) for g in optimizer.param_groups for p in g["params"]}
        assert trained == {id(p) for p in agent.components[name].parameters()}


def test_a_phase_changes_its_own_component_only_and_leaves_evaluation_mode() -> None:
    agent = make_agent(*TINY)
    trainer = Phases(agent)
    buffer = trainer.buffer
    for name in agent.components:
        before = {n: torch.cat([p.flatten() for p in m.parameters()]).clone() for n, m in agent.components.items()}
        metrics = trainer.train(name, 1)
        assert buffer.num_tokenized == (
            0 if name == "tokenizer" else buffer.size
        )  # V has changed: all tokens are stale
        buffer.refresh_tokens(agent.encode)
        for other, module in agent.components.items():
            changed = not torch.equal(before[other], torch.cat([p.flatten() for p in module.parameters()]))
            assert changed is (other == name), (name, other)
        assert all(np.isfinite(v) for v in metrics.values())
        assert not agent.world_model.training
        assert not agent.tokenizer.training
        assert not trainer.learner.image_loss.training


@pytest.mark.parametrize(("rule", "least"), [("third_frame", 2), ("any_frame", 0)])
def test_rollouts_start_where_the_rule_allows(rule: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Phases(make_agent(*TINY, f"imagination.imagine_from={rule}", "controller.training.batch_size=200"))
    buffer, seen = trainer.buffer, []
    before = buffer.before
    monkeypatch.setattr(buffer, "before", lambda current, n: seen.append(current) or before(current, n))
    trainer.train("controller", 1)
    places = buffer.episodes.before[seen[0]]
    assert places.min() == least
    assert places.max() == 15


@pytest.mark.parametrize("phase", ["tokenizer", "world_model", "controller"])
def test_every_epoch_draws_its_own_batches(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, drawn = make_agent(*TINY, "tokenizer.training.stop_after_epoch=null"), []
    name = {"tokenizer": "sample_frames", "world_model": "sample_segments", "controller": "sample_starts"}[phase]
    sample = getattr(phases, name)
    monkeypatch.setattr(phases, name, lambda *a: drawn.append(sample(*a)) or drawn[-1])
    trainer = Phases(agent)
    for epoch in (2, 3):  # V's first epoch would draw for its warm-up too
        trainer.train(phase, epoch)
    first, second = drawn
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("by", ["passes", "steps", "episodes"])
@pytest.mark.parametrize("phase", ["tokenizer", "world_model", "controller"])
def test_batches_are_drawn_as_configured(phase: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"tokenizer": "sample_frames", "world_model": "sample_segments", "controller": "sample_starts"}[phase]
    sample, asked = getattr(phases, name), []
    monkeypatch.setattr(phases, name, lambda *a: asked.append(a[-1]) or sample(*a))
    plain = ("tokenizer.warmup=none", "tokenizer.codebook_init=uniform")  # which draw frames of their own
    Phases(make_agent(*TINY, *plain, f"training.sampling={by}")).train(phase, 1)
    assert asked == [by]


def test_m_trains_with_dropout_and_imagines_without() -> None:
    agent, modes = make_agent(*TINY), []
    agent.world_model.retnet.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    trainer = Phases(agent)
    for phase, training in (("world_model", True), ("controller", False)):
        modes.clear()
        trainer.train(phase, 1)
        assert set(modes) == {training}


def test_the_image_loss_is_in_training_mode_while_v_trains_and_only_then() -> None:
    trainer, modes = Phases(make_agent(*TINY)), []
    trainer.learner.image_loss.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    trainer.train("tokenizer", 1)
    assert set(modes) == {True}
    assert not trainer.learner.image_loss.training


def test_one_step_clips_the_gradient_and_returns_its_norm_before() -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    metrics = optimize(100 * module(torch.ones(1, 3)).sum(), module, optimizer, clip=0.5)
    norm = torch.stack([p.grad.norm() for p in module.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)
    assert metrics["gradient_norm"].item() == pytest.approx(100 * 8**0.5, rel=1e-5)
    assert metrics["gradient_clipped_fraction"] == 1
    metrics = optimize(module(torch.ones(1, 3)).sum(), module, optimizer, clip=10.0)
    assert metrics["gradient_clipped_fraction"] == 0
    assert module.weight.grad is not None
    assert (module.weight.grad == 1).all()


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_optimizer_is_the_configured_one(name: str, kind: type[torch.optim.Optimizer]) -> None:
    phase = resolve("Pong").controller.training.model_copy(update={"optimizer": name, "weight_decay": 0.0})
    optimizer = build_optimizer(torch.nn.Linear(3, 2), phase, spare_vectors=False)
    assert type(optimizer) is kind
    assert [g["lr"] for g in optimizer.param_groups] == [phase.learning_rate]


def test_the_median_image_error_is_that_of_painting_the_median() -> None:
    config = resolve("Catch", "quick", sets=TINY)
    buffer = make_buffer(config)
    frames = buffer.frames[:10]
    median = np.median(buffer.frames.numpy(), axis=0).astype(np.uint8)
    want = np.square(frames.numpy() / 127.5 - median / 127.5).mean()
    assert median_image_error(buffer, frames) == pytest.approx(want, rel=1e-5)


def test_warm_up_stops_when_it_beats_the_median_image_and_the_codebook_lies_on_the_latents() -> None:
    sets = (*TINY, "tokenizer.warmup=beats_median", "tokenizer.warmup_steps=150", "tokenizer.warmup_margin=1000")
    trainer = Phases(make_agent(*sets))
    metrics = trainer.train("tokenizer", 1)
    assert metrics["tokenizer/warmup_steps"] == 50
    assert trainer.agent.encode(trainer.buffer.frames).unique().numel() > 4


def test_randomness_is_a_function_of_its_name() -> None:
    def draws(*name: object) -> list[int]:
        return Randomness(*name).numpy("x").integers(1 << 30, size=4).tolist()

    assert draws(0, 1, "a") == draws(0, 1, "a")
    assert len({tuple(draws(s, e, p)) for s in (0, 1) for e in (0, 1) for p in ("a", "b")}) == 8


def test_a_long_run_on_a_cpu_is_announced_with_its_remedy_and_a_short_one_is_not(tmp_path: Path) -> None:
    said = []
    for epochs in (20_000, 4):
        agent, reporter = (
            make_agent(*TINY, f"training.num_epochs={epochs}"),
            Reporter(StopFlag(), tmp_path / "log", True),
        )
        reporter.pace.work = work_left(agent.config, 0)
        reporter.pace.guessed["controller"] = 1.0  # of 40,000 or 8 steps
        announce(agent, build_image_loss(agent.config, CPU, print), reporter)
        assert reporter.pace.guessed["controller"] == 1.0  # what is known is not timed again
        assert {"tokenizer", "world model", "encode", "collect"} < set(reporter.pace.guessed)
        said.append((tmp_path / "log").read_text() if (tmp_path / "log").exists() else "")
    assert "on this CPU (a step of tokenizer " in said[0]
    assert "controller 1 s); a GPU is meant for it. `--preset quick` takes minutes here.\n" in said[0]
    assert said[1] == said[0]


def test_measuring_changes_nothing_of_the_agent() -> None:
    agent = make_agent(*TINY)
    before = {n: torch.cat([p.flatten() for p in m.parameters()]).clone() for n, m in agent.components.items()}
    seconds = measure(agent, build_image_loss(agent.config, CPU, print), agent.components, no_check)
    assert set(seconds) == {"tokenizer", "tokenizer warm-up", "world model", "controller", "encode"}
    for name, module in agent.components.items():
        assert torch.equal(before[name], torch.cat([p.flatten() for p in module.parameters()]))


def test_steps_left() -> None:
    config = resolve("Pong")
    assert steps_left(config, "tokenizer", 0) == 595 * 200
    assert steps_left(config, "controller", 590) == 10 * 100


def test_a_batch_in_parts_takes_the_step_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that reach over an episode's end, so that parts have different numbers of positions with loss."""
    outcomes = []
    for part_size in (5, 100):
        monkeypatch.setitem(learner.PART_SIZES, "cpu", part_size)
        agent = make_agent(*TINY, "world_model.dropout=0", "world_model.sequence_blocks=10")
        optimizer, buffer = build_optimizers(agent)["world_model"], make_buffer(agent.config)
        buffer.refresh_tokens(agent.encode)
        segment = buffer.segments(np.arange(3, 51, 4), agent.config.world_model.sequence_blocks)
        assert len({int(part.real.sum()) for part in segment.parts(5)}) == 3
        metrics = world_model_step(agent, optimizer, segment)
        outcomes.append((metrics, [p.grad for p in agent.world_model.parameters()]))
    (whole, its_gradients), (in_parts, gradients) = outcomes[1], outcomes[0]
    torch.testing.assert_close(in_parts, whole)
    for a, b in zip(gradients, its_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


PAPER_PARAMETERS = {"tokenizer": 3_189_667, "world_model": 4_625_925, "controller": 4_574_407}


def test_parameter_counts_of_the_paper() -> None:
    agent = build_agent(resolve("Pong"), 6, CPU)
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in agent.components.items()}
    assert counts == PAPER_PARAMETERS


def test_dropout_of_lpips_heads_acts_in_training_mode_and_only_then() -> None:
    """V's loss of the same frames three times in each mode: only dropout can make it differ."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(shape, generator=generator) * 0.1 for name, shape in lpips_shapes().items()}
    agent, frames = make_agent(*TINY), make_buffer(resolve("Catch", "quick", sets=TINY)).frames[:4]
    for dropout in (False, True):
        loss = PerceptualLoss("lpips", LPIPS(tensors, head_dropout=dropout))
        values = {}
        for mode in (True, False):
            loss.train(mode)
            draws = [agent.tokenizer.loss(to_model_range(frames), loss)[1]["perceptual_loss"].item() for _ in range(3)]
            values[mode] = len(set(draws))
        assert values == {True: 3 if dropout else 1, False: 1}


@pytest.mark.parametrize(("precision", "deep_type"), [("bf16", torch.bfloat16), ("fp32", None)])
@pytest.mark.parametrize("dropout", [True, False])
def test_lpips_is_built_as_the_configuration_says(
    precision: str, deep_type: torch.dtype | None, dropout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (f"runtime.precision={precision}", f"tokenizer.lpips_head_dropout={str(dropout).lower()}")
    config = resolve("Pong", "paper", sets=sets)
    monkeypatch.setattr(build, "require_lpips", lambda _: Path("nowhere"))
    monkeypatch.setattr(perceptual, "read_lpips", lambda _: {n: t.numpy() for n, t in random_lpips_weights().items()})
    lpips = build_image_loss(config, CPU, print).lpips
    assert lpips is not None
    assert (lpips.deep_type, lpips.head_dropout) == (deep_type, dropout)
    assert lpips_options(config) == {"deep_type": deep_type, "head_dropout": dropout}


@pytest.mark.parametrize(("precision", "while_trained"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_deep_levels_of_lpips_are_rounded_where_v_trains_and_not_where_it_is_judged(
    precision: str, while_trained: torch.dtype
) -> None:
    sets = ("tokenizer.training.batch_size=1", f"runtime.precision={precision}")
    agent, types = make_agent(*TINY, *sets), set()
    lpips, buffer = LPIPS(random_lpips_weights(), **lpips_options(agent.config)), make_buffer(agent.config)
    lpips.levels[2].register_forward_hook(lambda _, inputs, output: types.update({inputs[0].dtype, output.dtype}))
    loss = PerceptualLoss("lpips", lpips)

    def seen(work: Callable[[], object]) -> set[torch.dtype]:
        types.clear()
        work()
        assert not loss.training
        return set(types)

    trained = Learner(agent, loss, buffer)
    assert seen(lambda: train_tokenizer(trained, 1, no_track)) == {while_trained}  # its warm-up too
    assert seen(lambda: measure(agent, loss, ["tokenizer"], no_check)) == {while_trained}
    buffer.refresh_tokens(agent.encode)
    with torch.no_grad():
        assert seen(lambda: judge_tokenizer(agent, buffer, loss)) == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "num_frames"), [("paper", 128), ("iris", 32)])
def test_one_training_step_of_each_component_at_the_papers_size(preset: str, num_frames: int) -> None:
    """In bf16, LPIPS with random weights: the computation is the same."""
    sets = [
        f"{name}.training.{key}" for name in PAPER_PARAMETERS for key in ("start_after_epoch=0", "steps_per_epoch=1")
    ]
    agent = build_agent(resolve("Pong", preset, sets=(*sets, f"tokenizer.training.batch_size={num_frames}")), 6, CPU)
    lpips, buffer = LPIPS(random_lpips_weights(), **lpips_options(agent.config)), make_buffer(agent.config, 256)
    trainer = Learner(agent, PerceptualLoss("lpips", lpips), buffer)
    v = train_tokenizer(trainer, 2, no_track)
    buffer.refresh_tokens(agent.encode)
    m = train_world_model(trainer, 1, no_track)
    c = train_controller(trainer, 1, no_track)
    assert all(np.isfinite(float(x)) for x in (*v.values(), *m.values(), *c.values()))
    # An untrained M is close to uniform over 512 codes, 3 signs and 2 ends.
    assert m["world_model/observation_loss"] == pytest.approx(np.log(512), rel=0.1)
    assert c["controller/policy_entropy"] == pytest.approx(np.log(6), rel=0.05)
