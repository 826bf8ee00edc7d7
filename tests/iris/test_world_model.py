"""M with IRIS' Transformer: losses where IRIS has them, imagination equal to training, what a full window does. float64."""

import pytest
import torch
from torch import Tensor

from remctl.config import RunConfig, WorldModelConfig, resolve
from remctl.interfaces import Segment
from remctl.iris.transformer import Transformer
from remctl.rem import world_model as module
from remctl.rem.world_model import WorldModel
from remctl.train.build import build_agent, build_optimizers
from tests.draws import streams
from tests.rem.test_world_model import CODES, A, B, K, N, Recorder, T, _float64, forced_imagination, make_segment

__all__ = ["_float64"]  # the fixture: torch's default type is float64
CLOSE = {"rtol": 0, "atol": 1e-12}
n = K + 1
CPU = torch.device("cpu")
PRESETS = pytest.mark.parametrize("preset", ["iris", "iris-rem"])


def make_model(**changes: object) -> WorldModel:
    small = {
        "architecture": "transformer",
        "observation_prediction": "token_by_token",
        "observation_embeddings": "separate",
        "num_layers": 2,
        "num_heads": 2,
        "embed_dim": 16,
        "ffn_dim": 24,
        "context_blocks": 1,
        "sequence_blocks": T,
        "loss_rule": "all_positions",
    }
    config = WorldModelConfig(**small | changes)
    return WorldModel(config, A, K, N, Transformer(config, K)).eval()


def ragged() -> Tensor:
    return torch.arange(T) < torch.tensor([[T], [4], [1]])


# --- training


def test_losses_fall_on_every_token_but_the_first_and_on_every_reward_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen at the Transformer's outputs: from every position but the last-but-one of a block; rewards at its action."""
    model, real = make_model(), ragged()
    outputs: list[Tensor] = []
    model.transformer.norm.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), outputs.append(out))[0])
    position = torch.arange(T * n)
    predicts_observation = position % n != K - 1
    next_real = torch.cat([real.repeat_interleave(n, 1)[:, 1:], torch.zeros(B, 1, dtype=torch.bool)], 1)
    at_action = (position % n == K) & real.repeat_interleave(n, 1)
    want = {"observation_loss": predicts_observation & next_real, "reward_loss": at_action, "end_loss": at_action}
    for name, places in want.items():
        _, terms = model.loss(make_segment(real), CODES)
        terms[name].backward()
        gradient = outputs[-1].grad
        assert gradient is not None
        assert torch.equal((gradient != 0).any(-1), places), name


def test_losses_are_means_of_cross_entropies() -> None:
    model, segment = make_model(), make_segment(ragged())
    total, terms = model.loss(segment, CODES)
    blocks = model._blocks(segment.tokens, segment.actions, CODES)
    out = model.transformer(blocks, model.transformer.initial_state(B, blocks)).real
    observation, reward, end = [], [], []
    for b in range(B):
        for t in range(T):
            if not segment.real[b, t]:
                continue
            for k in range(K):
                if t or k:
                    before = out[b, t, k - 1] if k else out[b, t - 1, K]
                    observation.append(-model.observation_head(before).log_softmax(-1)[segment.tokens[b, t, k]])
            sign = int(segment.rewards[b, t].sign())
            reward.append(-model.reward_head(out[b, t, K]).log_softmax(-1)[sign + 1])
            end.append(-model.end_head(out[b, t, K]).log_softmax(-1)[int(segment.ends[b, t])])
    means = [torch.stack(values).mean() for values in (observation, reward, end)]
    for name, mean in zip(("observation_loss", "reward_loss", "end_loss"), means, strict=True):
        torch.testing.assert_close(terms[name], mean, **CLOSE)
    torch.testing.assert_close(total, sum(means), **CLOSE)
    gradients = torch.autograd.grad(total, list(model.parameters()))
    assert all(g.isfinite().all() and (g != 0).any() for g in gradients)


def test_padding_has_exactly_no_influence() -> None:
    model, real = make_model(), ragged()
    segment = make_segment(real)
    other = segment._replace(
        tokens=torch.where(real[..., None], segment.tokens, (segment.tokens + 1) % N),
        actions=torch.where(real, segment.actions, (segment.actions + 1) % A),
        rewards=torch.where(real, segment.rewards, -segment.rewards + 5),
        ends=torch.where(real, segment.ends, ~segment.ends),
    )
    results = []
    for s in (segment, other):
        loss, _ = model.loss(s, CODES)
        results.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


# --- imagination


@pytest.mark.parametrize("context", [1, 2, 3])
@pytest.mark.parametrize("embeddings", ["tokenizer", "separate"])
def test_imagination_equals_the_training_forward_at_the_same_block(
    context: int, embeddings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(context_blocks=context, observation_embeddings=embeddings)
    segment = make_segment()
    with torch.no_grad():
        observation, reward = forced_imagination(model, segment, monkeypatch)
        blocks = model._blocks(segment.tokens, segment.actions, CODES)
        outputs, at_action = model._training_outputs(blocks, context)
    torch.testing.assert_close(observation, model.observation_head(outputs), **CLOSE)
    torch.testing.assert_close(reward, model.reward_head(at_action)[:, context - 1 : -1], **CLOSE)


def test_context_that_is_not_real_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(context_blocks=3)
    tokens, actions = torch.randint(N, (B, 3, K)), torch.randint(A, (B, 2))
    real = torch.tensor([[False, True], [False, False], [True, True]])
    changed = tokens.clone()
    changed[:, :2] = torch.where(real[..., None], tokens[:, :2], (tokens[:, :2] + 1) % N)

    def logits(given: Tensor, real: Tensor) -> Tensor:
        recorder = Recorder()
        monkeypatch.setattr(module, "sample_categorical", recorder)
        model.step(model.begin(given, actions, real, CODES), torch.zeros(B, dtype=torch.int64), streams())
        return torch.stack(recorder.logits[:K])

    assert torch.equal(logits(tokens, real), logits(changed, real))
    everything = torch.ones_like(real)
    assert not torch.equal(logits(tokens, everything), logits(changed, everything))


@torch.no_grad()
def test_stepping_twice_from_one_state_gives_the_same_and_leaves_it_alone() -> None:
    model, segment = make_model(), make_segment()
    state = model.begin(segment.tokens[:, :1], segment.actions[:, :0], segment.real[:, :0], CODES)
    for step in range(T + 2):  # beyond the window too
        held = [layer.held.clone() for layer in state.memory.layers]
        action = segment.actions[:, step % T]
        results = [model.step(state, a, streams(step)) for a in (action, (action + 1) % A, action)]
        (first, imagined), (other, _), (second, again) = results
        assert torch.equal(imagined.tokens, again.tokens)
        for layers in zip(first.memory.layers, second.memory.layers, strict=True):
            assert torch.equal(layers[0].held, layers[1].held)
        assert not torch.equal(first.memory.layers[0].held, other.memory.layers[0].held)
        assert all(torch.equal(x.held, was) for x, was in zip(state.memory.layers, held, strict=True))
        state = first


@torch.no_grad()
def test_a_full_window_starts_again_from_the_current_observation() -> None:
    model, segment = make_model(sequence_blocks=3), make_segment()
    state = model.begin(segment.tokens[:, :1], segment.actions[:, :0], segment.real[:, :0], CODES)
    positions = []
    for step in range(T):
        tokens, action = state.tokens, segment.actions[:, step]
        positions.append(state.position)
        full = state.position + n > 3 * n
        fresh = model.begin(tokens[:, None], segment.actions[:, :0], segment.real[:, :0], CODES)
        ends = [model.step(s, action, streams(step))[0] for s in (state, fresh)]
        held, held_fresh = ([layer.held for layer in s.memory.layers] for s in ends)
        same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(held, held_fresh, strict=True))
        assert same is (full or step == 0)
        state = ends[0]
    assert positions == [K, K + n, K + 2 * n, K + n, K + 2 * n, K + n]


@PRESETS
def test_a_rollout_and_a_segment_fit_into_the_window(preset: str) -> None:
    config = resolve("Pong", preset=preset)
    n = config.tokenizer.tokens_per_obs + 1
    window = Transformer(config.world_model, n - 1).max_positions
    assert config.world_model.sequence_blocks * n == window
    assert n - 1 + config.num_rewarded_steps * n <= window < n - 1 + (config.num_rewarded_steps + 1) * n


# --- what is built


def published(preset: str) -> RunConfig:
    return resolve("Pong", preset=preset)


def test_parameters_of_the_published_configuration() -> None:
    agent = build_agent(published("iris"), 6, CPU)
    assert sum(p.numel() for p in agent.world_model.parameters()) == 8_448_005
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in agent.world_model.named_children()}
    E, window = 256, 20 * 17
    layer = 2 * 2 * E + 4 * (E * E + E) + (E * 4 * E + 4 * E) + (4 * E * E + E)

    def head(classes: int) -> int:
        return E * E + E + E * classes + classes

    assert sizes == {
        "transformer": window * E + 10 * layer + 2 * E,
        "action_embedding": 6 * E,
        "observation_embedding": 512 * E,
        "observation_head": head(512),
        "reward_head": head(3),
        "end_head": head(2),
    }


def test_weights_start_as_gpts() -> None:
    torch.set_default_dtype(torch.float32)
    model = build_agent(published("iris"), 6, CPU).world_model
    for module_ in model.modules():
        if isinstance(module_, torch.nn.Linear | torch.nn.Embedding) and module_.weight.numel() > 5000:
            assert module_.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(module_, torch.nn.Linear):
            assert (module_.bias == 0).all()
        if isinstance(module_, torch.nn.LayerNorm):
            assert (module_.weight == 1).all()


@PRESETS
def test_optimisers(preset: str) -> None:
    agent = build_agent(published(preset), 6, CPU)
    optimizers = build_optimizers(agent)
    kinds = {name: type(optimizer).__name__ for name, optimizer in optimizers.items()}
    assert kinds == {"tokenizer": "Adam", "world_model": "AdamW", "controller": "Adam"}
    decayed, plain = optimizers["world_model"].param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    matrices = [p for name, p in agent.world_model.named_parameters() if p.ndim == 2 and "embedding" not in name]
    assert {id(p) for p in decayed["params"]} == {id(p) for p in matrices}
    assert all(group["weight_decay"] == 0 for group in optimizers["tokenizer"].param_groups)


def test_rewards_and_ends_are_read_as_they_are_trained() -> None:
    """The heads' biases alone trained towards one outcome: imagination gives it."""
    model, segment = make_model(), make_segment()
    segment = Segment(*segment)._replace(rewards=torch.full((B, T), -5.0), ends=torch.ones(B, T, dtype=torch.bool))
    biases = [model.reward_head[-1].bias, model.end_head[-1].bias]
    for _ in range(60):
        loss, _ = model.loss(segment, CODES)
        for bias, gradient in zip(biases, torch.autograd.grad(loss, biases), strict=True):
            bias.data -= 20 * gradient
    state = model.begin(segment.tokens[:, :1], segment.actions[:, :0], segment.real[:, :0], CODES)
    _, imagined = model.step(state, segment.actions[:, 0], streams())
    assert imagined.reward.tolist() == [-1.0] * B
    assert imagined.end.tolist() == [True] * B
