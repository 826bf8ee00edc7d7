"""M: losses only where they belong, imagination equal to training, no leaks. float64."""

import pytest
import torch
from torch import Tensor

from remctl.config import WorldModelConfig
from remctl.interfaces import Segment
from remctl.rem import world_model as module
from remctl.rem.retnet import RetNet
from remctl.rem.world_model import WorldModel
from tests.draws import streams

EXACT = {"rtol": 0, "atol": 1e-12}
K, N, A, B, T = 4, 7, 3, 3, 6


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def make_model(**changes: object) -> WorldModel:
    small = {
        "num_layers": 2,
        "num_heads": 2,
        "embed_dim": 16,
        "ffn_dim": 24,
        "sequence_blocks": T,
        "layer_init": "independent",
    }
    return WorldModel(WorldModelConfig(**small | changes), A, K, N).eval()


def make_segment(real: Tensor | None = None) -> Segment:
    return Segment(
        tokens=torch.randint(N, (B, T, K)),
        actions=torch.randint(A, (B, T)),
        rewards=torch.randn(B, T).round(),
        ends=torch.rand(B, T) < 0.3,
        real=torch.ones(B, T, dtype=torch.bool) if real is None else real,
        starts_episode=torch.tensor([True, False, False]),
    )


CODES = torch.randn(N, 16, dtype=torch.float64)
BOTH = pytest.mark.parametrize("prediction", ["pop", "token_by_token"])


class Recorder:
    """Stands in for sampling: records the logits it is given, returns what it is told to."""

    def __init__(self, answers: list[Tensor] | None = None) -> None:
        self.logits: list[Tensor] = []
        self.answers = answers or []

    def __call__(self, logits: Tensor, generator: object, temperature: float = 1.0) -> Tensor:
        self.logits.append(logits)
        return self.answers.pop(0) if self.answers else torch.zeros(logits.shape[:-1], dtype=torch.int64)


def forced_imagination(model: WorldModel, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Imagine along the segment: observation logits of blocks context.. and reward logits of blocks context-1.."""
    context = model.config.context_blocks
    state = model.begin(
        segment.tokens[:, :context], segment.actions[:, : context - 1], segment.real[:, : context - 1], CODES
    )
    observation, reward = [], []
    for j in range(context - 1, T - 1):
        nexts = segment.tokens[:, j + 1]
        answers = [nexts] if model.pop else list(nexts.unbind(1))
        recorder = Recorder(answers)
        monkeypatch.setattr(module, "sample_categorical", recorder)
        state, _ = model.step(state, segment.actions[:, j], streams())
        *tokens, reward_logits, _ = recorder.logits
        observation.append(tokens[0] if model.pop else torch.stack(tokens, 1))
        reward.append(reward_logits)
    return torch.stack(observation, 1), torch.stack(reward, 1)


@BOTH
@pytest.mark.parametrize("context", [1, 2, 3])
@pytest.mark.parametrize("embeddings", ["tokenizer", "separate"])
def test_imagination_equals_the_training_forward_at_the_same_block(
    prediction: str, context: int, embeddings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(observation_prediction=prediction, context_blocks=context, observation_embeddings=embeddings)
    segment = make_segment()
    observation, reward = forced_imagination(model, segment, monkeypatch)
    blocks = model._blocks(segment.tokens, segment.actions, CODES)
    outputs, at_action = model._training_outputs(blocks, context)
    torch.testing.assert_close(observation, model.observation_head(outputs), **EXACT)
    torch.testing.assert_close(reward, model.reward_head(at_action)[:, context - 1 : -1], **EXACT)


@BOTH
@pytest.mark.parametrize("rule", ["published", "supervise_starts"])
def test_padding_has_exactly_no_influence(prediction: str, rule: str) -> None:
    real = torch.arange(T) < torch.tensor([[T], [4], [3]])
    model = make_model(observation_prediction=prediction, loss_rule=rule)
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
        results.append((loss, *torch.autograd.grad(loss, model.parameters(), allow_unused=True)))
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


def expected_masks(rule: str, context: int, real: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The rule as it is written, blocks counted from 1."""
    observed, rewarded = torch.zeros(B, T, dtype=torch.bool), torch.zeros(B, T, dtype=torch.bool)
    for b in range(B):
        for j in range(1, T + 1):
            if rule == "published":
                token, reward = j > context, j > context
            elif rule == "all_positions":  # but the very first token, which is not predicted
                token, reward = True, True
            else:
                token, reward = j > context or (j > 1 and bool(starts[b])), j >= context or bool(starts[b])
            observed[b, j - 1], rewarded[b, j - 1] = token and real[b, j - 1], reward and real[b, j - 1]
    return observed, rewarded


@pytest.mark.parametrize("embeddings", ["tokenizer", "separate"])
@pytest.mark.parametrize("prediction_tokens", ["separate", "shared"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_first_projections_looked_up_are_those_that_are_multiplied(
    embeddings: str, prediction_tokens: str, num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, gradients and imagined logits. A table that no row is looked up in would hide faults: it is counted."""
    model = make_model(
        observation_embeddings=embeddings, prediction_tokens=prediction_tokens, num_layers=num_layers, context_blocks=3
    )
    segment, found, tables = make_segment(torch.arange(T) < torch.tensor([[T], [5], [3]])), [], []
    right = RetNet.first_projections
    monkeypatch.setattr(RetNet, "first_projections", lambda net, x: tables.append(len(x)) or right(net, x))
    for least_saved in (float("inf"), float("-inf")):
        monkeypatch.setattr(module, "LEAST_SAVED", least_saved)
        loss, terms = model.loss(segment, CODES)
        gradients = torch.autograd.grad(loss, model.parameters(), allow_unused=True)
        with torch.no_grad():
            imagined = forced_imagination(model, segment, monkeypatch)
        found.append([*terms.values(), *(g for g in gradients if g is not None), *imagined])
    assert tables == [N + A + K] * 2  # one for a step, one for a rollout
    for wanted, looked_up in zip(*found, strict=True):
        torch.testing.assert_close(looked_up, wanted, **EXACT)


def test_small_work_and_bfloat16_sums_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    model, codes, rows = make_model(), CODES.float(), N + A + K
    assert model._projections(10_000, codes) is None
    monkeypatch.setattr(module, "LEAST_SAVED", 0)
    assert [model._projections(r, codes) is None for r in (rows - 1, rows)] == [True, False]
    with torch.autocast("cpu", torch.bfloat16):
        assert model._projections(rows, codes) is None
        with torch.no_grad():
            assert model._projections(rows, codes).dtype == torch.bfloat16
    assert model.to("meta")._projections(rows, codes.to("meta")) is None


@pytest.mark.parametrize("rule", ["published", "supervise_starts", "all_positions"])
@pytest.mark.parametrize("context", [1, 2, 3])
def test_loss_falls_exactly_where_the_rule_says(rule: str, context: int) -> None:
    model = make_model(loss_rule=rule, context_blocks=context)
    segment = make_segment(torch.arange(T) < torch.tensor([[T], [5], [3]]))
    tokens, rewarded = model._loss_masks(segment)
    want_observed, want_rewarded = expected_masks(rule, context, segment.real, segment.starts_episode)
    want_tokens = want_observed[:, model.config.first_predicted_block :, None].expand_as(tokens).clone()
    if rule == "all_positions":
        want_tokens[:, 0, 0] = False  # nothing stands before a segment's very first token
    assert torch.equal(tokens, want_tokens)
    assert not want_observed[:, : model.config.first_predicted_block].any()
    assert torch.equal(rewarded, want_rewarded)


def test_losses_and_gradients_of_parts_add_up_to_those_of_the_whole() -> None:
    model = make_model()
    segment = make_segment(torch.arange(T) < torch.tensor([[T], [5], [3]]))
    parameters = list(model.parameters())
    total, terms = model.loss(segment, CODES)
    whole = torch.autograd.grad(total, parameters, allow_unused=True)
    parts = [model.loss(part, CODES, segment) for part in segment.parts(2)]
    assert [len(part.real) for part in segment.parts(2)] == [2, 1]
    for name, term in terms.items():
        torch.testing.assert_close(sum(t[name] for _, t in parts), term, **EXACT)
    added = torch.autograd.grad(sum(loss for loss, _ in parts), parameters, allow_unused=True)
    for a, b in zip(added, whole, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, **EXACT)


def test_losses_are_means_of_cross_entropies_over_their_own_positions() -> None:
    model = make_model()
    segment = make_segment(torch.arange(T) < torch.tensor([[T], [5], [3]]))
    total, terms = model.loss(segment, CODES)
    blocks = model._blocks(segment.tokens, segment.actions, CODES)
    outputs, at_action = model._training_outputs(blocks, 2)
    observed, rewarded = expected_masks("published", 2, segment.real, segment.starts_episode)
    log_p = model.observation_head(outputs).log_softmax(-1)
    picked = log_p.gather(-1, segment.tokens[:, 2:, :, None]).squeeze(-1)
    torch.testing.assert_close(terms["observation_loss"], -picked[observed[:, 2:]].mean(), **EXACT)
    log_r = model.reward_head(at_action).log_softmax(-1)
    picked = log_r.gather(-1, (segment.rewards.sign().long() + 1)[..., None]).squeeze(-1)
    torch.testing.assert_close(terms["reward_loss"], -picked[rewarded].mean(), **EXACT)
    torch.testing.assert_close(total, sum(terms.values()), **EXACT)


def test_a_segment_that_carries_no_loss_gives_zero_and_finite_gradients() -> None:
    model = make_model()
    loss, _ = model.loss(make_segment(torch.zeros(B, T, dtype=torch.bool)), CODES)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@BOTH
def test_context_that_is_not_real_leaves_no_trace(prediction: str) -> None:
    model = make_model(observation_prediction=prediction, context_blocks=3)
    tokens, actions = torch.randint(N, (B, 3, K)), torch.randint(A, (B, 2))
    real = torch.tensor([[False, True], [False, False], [True, True]])
    changed = tokens.clone()
    changed[:, :2] = torch.where(real[..., None], tokens[:, :2], (tokens[:, :2] + 1) % N)
    states = [model.begin(t, actions, real, CODES).memory for t in (tokens, changed)]
    for a, b in zip(*states, strict=True):
        assert torch.equal(a, b)
    opened = model.begin(changed, actions, torch.ones_like(real), CODES).memory
    assert any(not torch.equal(a, b) for a, b in zip(states[0], opened, strict=True))


def test_pop_needs_one_fused_pass_per_step_and_token_by_token_one_per_token() -> None:
    for prediction, calls_per_step in (("pop", 1), ("token_by_token", K + 1)):
        model = make_model(observation_prediction=prediction)
        calls: list[int] = []
        model.retnet.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        segment = make_segment()
        state = model.begin(segment.tokens[:, :2], segment.actions[:, :1], segment.real[:, :1], CODES)
        before = len(calls)
        state, imagined = model.step(state, segment.actions[:, 1], streams())
        assert len(calls) - before == calls_per_step
        assert imagined.tokens.shape == (B, K)
        assert set(imagined.reward.tolist()) <= {-1.0, 0.0, 1.0}


def test_m_does_not_train_the_tokenizers_code_vectors() -> None:
    codes = CODES.clone().requires_grad_()
    loss, _ = make_model().loss(make_segment(), codes.detach())
    loss.backward()
    assert codes.grad is None


def test_parameters_differ_only_where_a_switch_declares_it() -> None:
    names = {k: set(make_model(**c).state_dict()) for k, c in {
        "rem": {},
        "no_pop": {"observation_prediction": "token_by_token"},
        "separate": {"observation_embeddings": "separate"},
        "spare": {"spare_prediction_token": True},
    }.items()}  # fmt: skip
    assert names["rem"] - names["no_pop"] == {"prediction_embedding.weight"}
    assert names["separate"] - names["rem"] == {"observation_embedding.weight"}
    assert names["spare"] == names["rem"]
    assert make_model(spare_prediction_token=True).prediction_embedding.weight.shape[0] == K + 1


@BOTH
@pytest.mark.parametrize(("reward", "end"), [(-1, False), (0, True), (1, False)])
def test_step_reads_reward_signs_and_ends_as_the_loss_trains_them(prediction: str, reward: int, end: bool) -> None:
    """Train the heads' biases alone towards one outcome: imagination must give it."""
    model, segment = make_model(observation_prediction=prediction), make_segment()
    segment = segment._replace(rewards=torch.full((B, T), 5.0 * reward), ends=torch.full((B, T), end))
    biases = [model.reward_head[-1].bias, model.end_head[-1].bias]
    for _ in range(60):
        loss, _ = model.loss(segment, CODES)
        for bias, gradient in zip(biases, torch.autograd.grad(loss, biases), strict=True):
            bias.data -= 20 * gradient
    state = model.begin(segment.tokens[:, :2], segment.actions[:, :1], segment.real[:, :1], CODES)
    _, imagined = model.step(state, segment.actions[:, 1], streams())
    assert imagined.reward.tolist() == [reward] * B
    assert imagined.end.tolist() == [end] * B


@BOTH
@pytest.mark.parametrize("context", [1, 2, 3])
def test_what_context_blocks_should_have_predicted_has_exactly_no_influence(prediction: str, context: int) -> None:
    """Published rule: rewards and ends of the context, and its tokens as targets; as inputs they do matter."""
    model = make_model(observation_prediction=prediction, context_blocks=context, loss_rule="published")
    segment = make_segment()
    rewards, ends = segment.rewards.clone(), segment.ends.clone()
    rewards[:, :context] = rewards[:, :context] - 5
    ends[:, :context] = ~ends[:, :context]
    losses = []
    for s in (segment, segment._replace(rewards=rewards, ends=ends)):
        loss, _ = model.loss(s, CODES)
        losses.append((loss, *torch.autograd.grad(loss, model.parameters(), allow_unused=True)))
    for a, b in zip(*losses, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert model.config.first_predicted_block == context
    later = segment._replace(rewards=-segment.rewards - 5)
    assert not torch.equal(model.loss(later, CODES)[0], losses[0][0])


def test_targets_inside_the_context_never_reach_the_observation_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context's tokens changed as targets alone, its embeddings held: nothing moves."""
    model, segment = make_model(context_blocks=2), make_segment()
    blocks = model._blocks(segment.tokens, segment.actions, CODES)
    monkeypatch.setattr(model, "_blocks", lambda *_: blocks)
    changed, after = segment.tokens.clone(), segment.tokens.clone()
    changed[:, :2] = (changed[:, :2] + 1) % N
    after[:, 2] = (after[:, 2] + 1) % N
    loss = model.loss(segment, CODES)[0]
    assert torch.equal(model.loss(segment._replace(tokens=changed), CODES)[0], loss)
    assert not torch.equal(model.loss(segment._replace(tokens=after), CODES)[0], loss)
