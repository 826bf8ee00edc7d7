"""The diagnosis against known answers: a world model that knows the future, one that believes in standstill, and loops.

Episodes are noise, so that every frame has tokens of its own: of 12, 1 and 9 steps with an end, and of 4 without.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from remctl.config import RunConfig, resolve
from remctl.interfaces import ImaginationStreams
from remctl.rem.perceptual import pixel_loss
from remctl.rem.tokenizer import to_model_range
from remctl.rem.world_model import Imagined, Segment, WorldModel, WorldModelState
from remctl.replay.buffer import Episodes, Steps
from remctl.train import diagnosis, heldout
from remctl.train.build import Agent, build_agent
from remctl.train.diagnosis import buffer_of, diagnose, flat, precision_recall
from remctl.train.evaluate import as_steps, play
from remctl.train.seeding import Randomness

RANDOM = Randomness(0, 1, "test")
LENGTHS, ENDED = (12, 1, 4, 9), (True, True, False, True)
TINY = (
    "tokenizer.channels=[8]",
    "tokenizer.embed_dim=16",
    "tokenizer.num_codes=32",
    "world_model.embed_dim=16",
    "world_model.ffn_dim=16",
    "world_model.num_layers=1",
    "controller.conv_channels=[4]",
    "controller.hidden_dim=8",
)


def tiny_config() -> RunConfig:
    return resolve("Catch", "quick", sets=TINY)


def noise_steps() -> Steps:
    rng, num = np.random.default_rng(0), sum(LENGTHS)
    last = np.cumsum(LENGTHS) - 1
    ends, rewards = np.zeros(num, bool), np.zeros(num, np.float32)
    ends[last] = ENDED
    rewards[last] = [1, -1, 0, 1]
    rewards[[3, 17, 20]] = [-5, 2, -1]
    frames = rng.integers(0, 256, (num, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    first = np.zeros(num, bool)
    first[last - np.array(LENGTHS) + 1] = True
    return Steps(frames, rng.integers(0, 3, num), rewards, ends, first)


class Oracle(nn.Module):
    """Knows what followed every frame, whatever is done; believes that nothing changes where nothing is stored."""

    def __init__(self, agent: Agent, steps: Steps) -> None:
        super().__init__()
        self.model = agent.world_model
        tokens = agent.encode(torch.from_numpy(steps.frames))
        assert len(tokens.unique(dim=0)) == len(steps), "two frames share their tokens"
        following = tokens.roll(-1, 0)
        remaining = Episodes(steps.first).remaining
        self.known = {
            tuple(now.tolist()): (next_ if left > 1 else now, float(np.sign(reward)), bool(end))
            for now, next_, left, reward, end in zip(
                tokens, following, remaining, steps.rewards, steps.ends, strict=True
            )
        }

    def loss(self, segment: Segment, code_vectors: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.loss(segment, code_vectors)

    def begin(self, tokens: Tensor, actions: Tensor, real: Tensor, code_vectors: Tensor) -> WorldModelState:
        return WorldModelState([], 0, tokens[:, -1], code_vectors)

    def outcome(self, tokens: Tensor) -> tuple[Tensor, float, bool]:
        return self.known[tuple(tokens.tolist())]

    def step(
        self, state: WorldModelState, action: Tensor, streams: ImaginationStreams
    ) -> tuple[WorldModelState, Imagined]:
        outcomes = [self.outcome(tokens) for tokens in state.tokens]
        tokens, rewards, ends = (list(x) for x in zip(*outcomes, strict=True))
        imagined = Imagined(torch.stack(tokens), torch.tensor(rewards), torch.tensor(ends))
        return state._replace(tokens=imagined.tokens), imagined


class Standstill(Oracle):
    """Nothing ever changes, nothing is won, nothing ends."""

    def outcome(self, tokens: Tensor) -> tuple[Tensor, float, bool]:
        return tokens, 0.0, False


@pytest.fixture(scope="module")
def steps() -> Steps:
    return noise_steps()


@pytest.fixture(scope="module")
def agent(steps: Steps) -> Agent:
    """Untrained, with a codebook of the encoder's own outputs."""
    agent = build_agent(tiny_config(), 3, torch.device("cpu"))
    with torch.no_grad():
        latents = agent.tokenizer.latents(to_model_range(torch.from_numpy(steps.frames)))
        points = latents.permute(0, 2, 3, 1).flatten(0, 2)
        agent.tokenizer.codebook.weight.copy_(points[:: len(points) // 32][:32])
    return agent


def with_model(agent: Agent, kind: type[Oracle], steps: Steps) -> Agent:
    return replace(agent, world_model=kind(agent, steps))


def diagnosed(agent: Agent, steps: Steps, num_starts: int = 1000) -> diagnosis.Diagnosis:
    return diagnose(agent, steps, pixel_loss, RANDOM, num_starts)


def all_scores(report: diagnosis.Diagnosis) -> list[diagnosis.Diagnosis]:
    parts = report["imagination"]
    return [parts["first_step"], parts["later_steps"], parts["all_steps"], *parts["per_step"]] + list(
        parts["by_context"].values()
    )


def test_who_knows_the_future_is_right_everywhere(agent: Agent, steps: Steps) -> None:
    for scores in all_scores(diagnosed(with_model(agent, Oracle, steps), steps)):
        assert scores["token_accuracy"] == scores["token_accuracy_changed"] == 1
        assert scores["moving_pixel_error"] == pytest.approx(0, abs=1e-10)
        assert scores["moving_pixel_error_no_change"] > 0
        for event in (*scores["reward"].values(), scores["end"]):
            assert event["num_right"] == event["num_imagined"] == event["num_real"]
            assert event["precision"] == event["recall"] == (1 if event["num_real"] else None)


def test_who_knows_the_future_rolls_out_what_happened(agent: Agent, steps: Steps) -> None:
    """Also where the recording is cut: the oracle never ends there, and is not blamed for it."""
    returns = diagnosed(with_model(agent, Oracle, steps), steps)["returns"]
    horizon, discount = tiny_config().num_rewarded_steps, tiny_config().controller.discount
    lengths, totals = [], []
    for i, left in enumerate(Episodes(steps.first).remaining):
        lengths.append(min(left, horizon))
        totals.append(sum(np.sign(r) * discount**h for h, r in enumerate(steps.rewards[i : i + lengths[-1]])))
    assert returns["imagined_length"] == returns["true_length"] == pytest.approx(np.mean(lengths))
    assert returns["imagined_return"] == returns["real_return"] == pytest.approx(np.mean(totals))


def test_an_imagination_that_goes_on_is_longer_than_a_life_that_ends(agent: Agent, steps: Steps) -> None:
    returns = diagnosed(with_model(agent, Standstill, steps), steps)["returns"]
    horizon = tiny_config().num_rewarded_steps
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    left = np.minimum(Episodes(steps.first).remaining, horizon)
    expected = np.where(np.array(ENDED)[episode], horizon, left).mean()
    assert returns["imagined_length"] == pytest.approx(expected)
    assert returns["true_length"] == pytest.approx(left.mean())
    assert returns["imagined_return"] == 0


def test_standstill_gives_the_numbers_of_no_change(agent: Agent, steps: Steps) -> None:
    report = diagnosed(with_model(agent, Standstill, steps), steps)
    for scores in all_scores(report):
        assert scores["token_accuracy"] == scores["token_accuracy_no_change"]
        assert scores["token_accuracy_changed"] == scores["token_accuracy_changed_no_change"]
        assert scores["moving_pixel_error"] == pytest.approx(scores["moving_pixel_error_no_change"])
        assert scores["end"]["precision"] is None
        assert scores["end"]["num_imagined"] == 0
    assert report["imagination"]["first_step"]["token_accuracy_changed"] == 0
    assert report["imagination"]["all_steps"]["end"]["recall"] == 0


def test_counts_against_a_loop_that_never_leaves_its_episode(agent: Agent, steps: Steps) -> None:
    report = diagnosed(with_model(agent, Standstill, steps), steps)
    tokens = agent.encode(torch.from_numpy(steps.frames)).numpy()
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    horizon, size = tiny_config().num_rewarded_steps, len(steps)
    for h in range(horizon):
        pairs = [(i, i + h) for i in range(size) if i + h < size and episode[i] == episode[i + h]]
        seen = [(i, j) for i, j in pairs if j + 1 < size and episode[j + 1] == episode[i]]
        scores = report["imagination"]["per_step"][h]
        assert scores["num_steps"] == len(pairs)
        assert scores["num_tokens"] == len(seen) * tokens.shape[1]
        assert scores["end"]["num_real"] == sum(steps.ends[j] for _, j in pairs)
        assert scores["reward"]["+1"]["num_real"] == sum(steps.rewards[j] > 0 for _, j in pairs)
        assert scores["reward"]["-1"]["num_real"] == sum(steps.rewards[j] < 0 for _, j in pairs)
        still = np.mean([(tokens[j + 1] == tokens[i]).mean() for i, j in seen])
        assert scores["token_accuracy_no_change"] == pytest.approx(still)
        changed = np.mean([(tokens[j + 1] != tokens[j]).mean() for _, j in seen])
        assert scores["changed_token_fraction"] == pytest.approx(changed)


def test_moving_pixel_error_against_a_loop(agent: Agent) -> None:
    """One episode in which only the left half moves."""
    steps = noise_steps()
    steps.frames[:, :, 32:] = steps.frames[0, :, 32:]
    steps = Steps(*(getattr(steps, name)[:3] for name in ("frames", "actions", "rewards", "ends", "first")))
    with torch.no_grad():
        shown = agent.tokenizer.reconstruct(to_model_range(torch.from_numpy(steps.frames)))
    first = diagnosed(agent, steps)["imagination"]["first_step"]
    expected = (shown[1:] - shown[:-1])[..., :32].square().mean().item()
    assert first["moving_pixel_error_no_change"] == pytest.approx(expected, rel=1e-5)


def test_precision_and_recall_by_hand() -> None:
    imagined = np.array([1, 1, -1, 0, 0, -1, 1])
    real = np.array([1, 0, 1, 1, 0, -1, 1])
    counts = {"num_right": 3, "num_imagined": 5, "num_real": 5}
    assert precision_recall(imagined, real) == {"precision": 3 / 5, "recall": 3 / 5} | counts
    counts = {"num_right": 2, "num_imagined": 3, "num_real": 4}
    assert precision_recall(imagined == 1, real == 1) == {"precision": 2 / 3, "recall": 2 / 4} | counts
    assert precision_recall(np.zeros(3, bool), np.array([True, False, True]))["precision"] is None
    assert precision_recall(np.ones(3, bool), np.zeros(3, bool)) | {"recall": 0} == {
        "precision": 0,
        "recall": 0,
        "num_right": 0,
        "num_imagined": 3,
        "num_real": 0,
    }


def test_starts_are_different_and_the_early_ones_are_extra() -> None:
    episodes = Episodes(np.arange(1000) % 500 == 0)
    starts, num_drawn = diagnosis.choose_starts(episodes, 64, np.random.default_rng(0))
    assert num_drawn == 64
    assert len(np.unique(starts)) == len(starts)
    assert {0, 500, 1, 501} <= set(starts.tolist())
    starts, num_drawn = diagnosis.choose_starts(Episodes(np.arange(3) == 0), 64, np.random.default_rng(0))
    assert (sorted(starts), num_drawn) == ([0, 1, 2], 3)


def test_the_tokenizers_errors_and_losses(agent: Agent, steps: Steps) -> None:
    report = diagnosed(agent, steps)
    frames = to_model_range(torch.from_numpy(steps.frames))
    with torch.no_grad():
        loss, terms = agent.tokenizer.loss(frames, pixel_loss)
        squares = (agent.tokenizer.reconstruct(frames) - frames).square()
    median = to_model_range(torch.from_numpy(np.median(steps.frames, axis=0)))
    v, losses = report["tokenizer"], report["losses"]["tokenizer"]
    assert v["reconstruction_error"] == pytest.approx(squares.mean().item(), rel=1e-5)
    assert v["median_image_error"] == pytest.approx((median - frames).square().mean().item(), rel=1e-5)
    assert v["reconstruction_to_median_ratio"] == pytest.approx(v["reconstruction_error"] / v["median_image_error"])
    assert v["worst_pixel_error"] == pytest.approx(squares.flatten(1).amax(1).mean().item(), rel=1e-5)
    assert losses["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert losses["codebook_loss"] == pytest.approx(terms["codebook_loss"].item(), rel=1e-4)


def test_code_use_by_hand() -> None:
    tokens = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    use = heldout.code_use(tokens, 5)
    assert use == {"code_perplexity": pytest.approx(2.0), "used_codes": 2, "num_codes": 5}


def test_world_model_losses_are_those_of_training(agent: Agent, steps: Steps) -> None:
    """Means over batches, weighted by their sizes."""
    losses = diagnosed(agent, steps)["losses"]["world_model"]
    buffer = buffer_of(agent, steps)
    buffer.refresh_tokens(agent.encode)
    starts = np.flatnonzero(buffer.episodes.remaining >= agent.config.min_segment_blocks)
    batch = agent.config.world_model.training.batch_size
    starts = RANDOM.numpy("segments").permutation(starts)
    parts = [starts[i : i + batch] for i in range(0, len(starts), batch)]
    length, codes = agent.config.world_model.sequence_blocks, agent.tokenizer.code_vectors
    with torch.no_grad():
        terms = [agent.world_model.loss(buffer.segments(part, length), codes)[1] for part in parts]
    expected = sum(len(part) * t["observation_loss"].item() for part, t in zip(parts, terms, strict=True)) / len(starts)
    assert losses["observation_loss"] == pytest.approx(expected, rel=1e-5)
    assert losses["loss"] == pytest.approx(sum(losses[f"{n}_loss"] for n in ("observation", "reward", "end")), rel=1e-5)


def noisy_loss(x: Tensor, y: Tensor) -> Tensor:
    """As LPIPS with dropout."""
    return torch.rand(())


def test_equal_randomness_gives_equal_numbers_and_leaves_no_trace(agent: Agent, steps: Steps) -> None:
    agent.tokenizer.train()
    agent.world_model.eval()
    agent.controller.train()
    modes = [m.training for c in agent.components.values() for m in c.modules()]
    before, reports = {k: v.clone() for k, v in agent.tokenizer.state_dict().items()}, []
    for seed in (1, 2):
        torch_state = torch.manual_seed(seed).get_state()
        reports.append(diagnose(agent, steps, noisy_loss, RANDOM, 10))
        assert torch.equal(torch.get_rng_state(), torch_state)
    other = diagnose(agent, steps, noisy_loss, Randomness(1, 1, "test"), 10)
    assert reports[0] == reports[1] != other
    # The extra starts with few real frames count by context only.
    assert reports[0]["imagination"]["first_step"]["num_steps"] == reports[0]["num_starts"] == 10
    assert sum(s["num_starts"] for s in reports[0]["imagination"]["by_context"].values()) > 10
    assert [m.training for c in agent.components.values() for m in c.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in agent.tokenizer.state_dict().items())
    assert all(p.grad is None for c in agent.components.values() for p in c.parameters())


def test_modes_are_restored_after_an_error(agent: Agent, steps: Steps) -> None:
    def broken(x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError

    agent.controller.train()
    with pytest.raises(RuntimeError):
        diagnose(agent, steps, broken, RANDOM, 3)
    assert agent.controller.training
    assert not agent.world_model.training


def test_scalars_have_one_set_of_names_whatever_is_undefined(agent: Agent, steps: Steps) -> None:
    rich = flat(diagnosed(with_model(agent, Oracle, steps), steps))
    one = Steps(*(getattr(steps, name)[:1] for name in ("frames", "actions", "rewards", "ends", "first")))
    report = diagnosed(agent, one)
    poor = flat(report)
    assert list(rich) == list(poor)
    assert all(name.startswith("test/") for name in rich)
    assert report["num_starts"] == 1
    assert report["losses"]["world_model"] is None
    assert math.isnan(poor["test/world_model_observation_loss"])
    assert math.isnan(poor["test/token_accuracy_first_step"])
    assert math.isnan(poor["test/reconstruction_to_median_ratio"])
    assert rich["test/reward_precision"] == rich["test/end_recall_first_step"] == 1
    assert rich["test/reconstruction_to_median_ratio"] > 0
    json.dumps(report, allow_nan=False)


def test_replay_that_begins_within_an_episode_will_do(agent: Agent, steps: Steps) -> None:
    part = Steps(*(getattr(steps, name)[5:] for name in ("frames", "actions", "rewards", "ends", "first")))
    assert not part.first[0]
    assert diagnosed(agent, part)["num_episodes"] == len(LENGTHS)
    assert not part.first[0]


@pytest.mark.parametrize("variant", ["rem", "no_pop", "no_latent_space"])
def test_a_real_agent_on_catch(variant: str) -> None:
    agent = build_agent(
        resolve("Catch", "quick", variant, sets=(*TINY, "imagination.horizon=10")), 3, torch.device("cpu")
    )
    assert isinstance(agent.world_model, WorldModel)
    report = diagnosed(agent, as_steps(play(agent, 3, RANDOM, lambda num_done: None, True, num_kept=3)), 8)
    assert report["num_episodes"] == 3
    assert report["num_steps"] == 21
    # Seven steps make an episode: the eighth imagined one has nothing beside it.
    assert report["imagination"]["per_step"][7]["end"]["num_real"] == 0
    assert sum(s["num_starts"] for s in report["imagination"]["by_context"].values()) >= 8
