"""The world model M (paper Sections 2.1-2.4): embeddings, a sequence model, heads, losses, and one imagined step.

The sequence model is REM's RetNet with POP, which also predicts token by token, or IRIS' Transformer, which can do only that.

Shapes: B batch, T blocks, K tokens per observation, n = K+1 tokens per block, E embedding, N vocabulary, A actions.
A block is an observation's K tokens and the action taken on it. Block j's observation logits predict block j's own
tokens; reward and termination are read at its action.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from remctl.config import WorldModelConfig
from remctl.interfaces import ImaginationStreams, Imagined, Segment, SequenceModel
from remctl.rem.retnet import RetNet
from remctl.rem.sampling import sample_categorical

LEAST_SAVED = 5e8  # multiplications, of the first layer's projections, that are worth a look-up in their place


class WorldModelState(NamedTuple):
    """`memory`: the sequence model's state. `position`: of the next token, absolute. `tokens` (B, K): the current observation.

    POP has not consumed `tokens` yet (it goes in with its action); token by token has. `projected`: as in `_projections`.
    """

    memory: Any
    position: int
    tokens: Tensor
    code_vectors: Tensor
    projected: Tensor | None = None


class WorldModel(nn.Module):
    """REM's world model, or IRIS': `sequence_model` is a RetNet where none is given.

    `observation_prediction` chooses POP or token by token (ablation No POP).
    """

    def __init__(
        self,
        config: WorldModelConfig,
        num_actions: int,
        tokens_per_obs: int,
        num_codes: int,
        sequence_model: SequenceModel | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.tokens_per_obs = tokens_per_obs
        self.block_len = tokens_per_obs + 1
        self.pop = config.observation_prediction == "pop"
        self.may_look_up = True  # the first layer's projections, where it pays
        E = config.embed_dim
        model: SequenceModel = RetNet(config) if sequence_model is None else sequence_model
        self.add_module(model.name, cast(nn.Module, model))
        self._sequence_model_name = model.name
        self.action_embedding = nn.Embedding(num_actions, E)
        if self.pop:
            num_vectors = 1 if config.prediction_tokens == "shared" else tokens_per_obs
            self.prediction_embedding = nn.Embedding(num_vectors + config.spare_prediction_token, E)
        if config.observation_embeddings == "separate":
            self.observation_embedding = nn.Embedding(num_codes, E)
        self.observation_head = _head(E, num_codes)
        self.reward_head = _head(E, 3)
        self.end_head = _head(E, 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights as GPT's, if so configured; else leave them as their layers have drawn them."""
        if self.config.weight_init == "gpt":
            self.apply(_init_as_gpt)

    @property
    def sequence_model(self) -> SequenceModel:
        """RetNet or Transformer; its parameters bear its own name."""
        return cast(SequenceModel, getattr(self, self._sequence_model_name))

    # Training

    def loss(
        self, segment: Segment, code_vectors: Tensor, whole: Segment | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropies of observation tokens, reward sign and termination, each a mean over its unmasked positions.

        code_vectors (N, E): V's codebook, not trained here. `whole`: the batch of which `segment` is a part, where it is
        one; sums are divided by the whole's positions, so that the losses of its parts add up to its own.
        """
        blocks = self._blocks(segment.tokens, segment.actions, code_vectors)
        (B, T), first = segment.actions.shape, self.config.first_predicted_block
        table = self._projections(B * self._num_rows(T, T - first), code_vectors)
        projected = self._projected(segment.tokens, segment.actions, T - first, table)
        observations, at_action = self._training_outputs(blocks, first, projected)
        observed, rewarded = self._loss_masks(segment)
        all_observed, all_rewarded = (observed, rewarded) if whole is None else self._loss_masks(whole)
        rewards, ends, num_rewarded = segment.rewards.sign().long() + 1, segment.ends.long(), all_rewarded.sum()
        terms = {
            "observation_loss": _cross_entropy(
                self.observation_head(observations), segment.tokens[:, first:], observed, all_observed.sum()
            ),
            "reward_loss": _cross_entropy(self.reward_head(at_action), rewards, rewarded, num_rewarded),
            "end_loss": _cross_entropy(self.end_head(at_action), ends, rewarded, num_rewarded),
        }
        return torch.stack(list(terms.values())).sum(), terms

    def _training_outputs(self, blocks: Tensor, first: int, projected: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs that predict the tokens of blocks first..T-1 (B, T-first, K, E), and those at the actions (B, T, E)."""
        B, T = blocks.shape[:2]
        state = self.sequence_model.initial_state(B, blocks)
        if self.pop:
            u = self._prediction_tokens(B, T - first)
            out = self.sequence_model(
                blocks, state, prediction=u, first_predicted=first, last_tokens_only=True, projected=projected
            )
            return out.predicted, out.real[:, :, -1]
        real = self.sequence_model(blocks, state).real
        # Token by token, the output one position before a token predicts it; before the very first stands none.
        before = F.pad(real.flatten(1, 2)[:, :-1], (0, 0, 1, 0))[:, first * self.block_len :]
        before = before.unflatten(1, (T - first, self.block_len))
        return before[:, :, : self.tokens_per_obs], real[:, :, -1]

    def _loss_masks(self, segment: Segment) -> tuple[Tensor, Tensor]:
        """Which tokens (B, T-first, K), and which rewards and ends (B, T) carry loss."""
        T, context = segment.real.shape[1], self.config.context_blocks
        block = torch.arange(T, device=segment.real.device)
        observed, rewarded = (block >= context)[None], (block >= context)[None]
        if self.config.loss_rule == "supervise_starts":
            starts = segment.starts_episode[:, None]
            observed = observed | starts
            rewarded = (block >= context - 1)[None] | starts
        elif self.config.loss_rule == "all_positions":
            observed = rewarded = (block >= 0)[None]
        first = self.config.first_predicted_block
        tokens = _token_mask((observed & segment.real)[:, first:], segment.tokens[:, first:], first)
        return tokens, rewarded & segment.real

    # Imagination

    def begin(self, tokens: Tensor, actions: Tensor, real: Tensor, code_vectors: Tensor) -> WorldModelState:
        """The state from which `step` imagines.

        tokens (B, T, K): the context observations, the current one last; actions (B, T-1) and real (B, T-1) of those
        before it. Blocks that are not real leave no trace.
        """
        B, T = tokens.shape[:2]
        state, position = self.sequence_model.initial_state(B, code_vectors), (T - 1) * self.block_len
        table = self._projections(B * self._num_rows(1, 1), code_vectors)
        if T > 1:
            blocks = self._blocks(tokens[:, :-1], actions, code_vectors)
            pruned: dict[str, Any] = {}
            if self.pop:  # nobody reads what comes out
                pruned = {"last_tokens_only": True, "projected": self._projected(tokens[:, :-1], actions, 0, table)}
            state = self.sequence_model(blocks, state, keep=real, **pruned).state
        if not self.pop:
            current = self._embed_observations(tokens[:, -1:], code_vectors)
            state = self.sequence_model(current, state, start=position).state
            position += self.tokens_per_obs
        return WorldModelState(state, position, tokens[:, -1], code_vectors, table)

    def step(
        self, state: WorldModelState, action: Tensor, streams: ImaginationStreams
    ) -> tuple[WorldModelState, Imagined]:
        """Take `action` (B,) on the current observation; reward, end and the next observation are sampled.

        POP: one pass that consumes the block and predicts the next (calls 2H of Section 2.3, fused layer by layer);
        token by token: one call for the action and one per token.
        """
        new_state, at_action = (self._step_pop if self.pop else self._step_tokens)(state, action, streams)
        reward = sample_categorical(self.reward_head(at_action), streams.outcomes) - 1
        end = sample_categorical(self.end_head(at_action), streams.outcomes).bool()
        return new_state, Imagined(new_state.tokens, reward.float(), end)

    def _step_pop(
        self, state: WorldModelState, action: Tensor, streams: ImaginationStreams
    ) -> tuple[WorldModelState, Tensor]:
        tokens, actions = state.tokens[:, None], action[:, None]
        out = self.sequence_model(
            self._blocks(tokens, actions, state.code_vectors),
            state.memory,
            state.position,
            prediction=self._prediction_tokens(action.shape[0], 1),
            first_predicted=1,
            last_tokens_only=True,
            projected=self._projected(tokens, actions, 1, state.projected),
        )
        drawn = sample_categorical(self.observation_head(out.predicted[:, 0]), streams.observations)
        new_state = state._replace(memory=out.state, position=state.position + self.block_len, tokens=drawn)
        return new_state, out.real[:, 0, -1]

    def _step_tokens(
        self, state: WorldModelState, action: Tensor, streams: ImaginationStreams
    ) -> tuple[WorldModelState, Tensor]:
        state = self._with_room(state)
        out = self.sequence_model(self.action_embedding(action)[:, None, None], state.memory, state.position)
        at_action = last = out.real[:, 0, -1]
        tokens = []
        for i in range(self.tokens_per_obs):
            tokens.append(sample_categorical(self.observation_head(last), streams.observations))
            x = self._embed_observations(tokens[-1][:, None, None], state.code_vectors)
            out = self.sequence_model(x, out.state, state.position + 1 + i)
            last = out.real[:, 0, -1]
        position = state.position + self.block_len
        return WorldModelState(out.state, position, torch.stack(tokens, 1), state.code_vectors), at_action

    def _with_room(self, state: WorldModelState) -> WorldModelState:
        """For a window without room for a block: the state that knows the current observation alone, as IRIS restarts."""
        limit = self.sequence_model.max_positions
        if limit is None or state.position + self.block_len <= limit:
            return state
        none = state.tokens[:, :0]
        return self.begin(state.tokens[:, None], none, none.bool(), state.code_vectors)

    # Embeddings

    def _blocks(self, tokens: Tensor, actions: Tensor, code_vectors: Tensor) -> Tensor:
        """(B, T, K) and (B, T) to (B, T, K+1, E)."""
        observations = self._embed_observations(tokens, code_vectors)
        return torch.cat([observations, self.action_embedding(actions).unsqueeze(2)], dim=2)

    def _embed_observations(self, tokens: Tensor, code_vectors: Tensor) -> Tensor:
        if self.config.observation_embeddings == "separate":
            return self.observation_embedding(tokens)
        return F.embedding(tokens, code_vectors)

    def _prediction_tokens(self, batch_size: int, num_blocks: int) -> Tensor:
        shared = self.config.prediction_tokens == "shared"
        u = self.prediction_embedding.weight[: 1 if shared else self.tokens_per_obs]
        return u.expand(batch_size, num_blocks, self.tokens_per_obs, -1)

    # The first layer's projections of a row depend on nothing but its code, its action or its place in u

    def _num_rows(self, num_blocks: int, num_predicted: int) -> int:
        """Of one sequence: real tokens and those of u."""
        return num_blocks * self.block_len + num_predicted * self.tokens_per_obs

    def _projections(self, num_rows: int, code_vectors: Tensor) -> Tensor | None:
        """The first layer's projections of every code, action and token of u, (N + A + K, 4 E); None where it does not pay.

        `num_rows` are to be looked up in it at a time. Not under bfloat16 with a gradient, which would be summed in it.
        """
        device = code_vectors.device.type
        if not (self.pop and self.may_look_up) or device != "cpu":
            return None
        if torch.is_autocast_enabled(device) and torch.is_grad_enabled():
            return None
        codes = code_vectors if self.config.observation_embeddings == "tokenizer" else self.observation_embedding.weight
        actions, u = self.action_embedding.weight, self._prediction_tokens(1, 1).flatten(0, 2)
        saved_rows = num_rows - len(codes) - len(actions) - len(u)
        if saved_rows * 4 * codes.shape[1] ** 2 < LEAST_SAVED:
            return None
        table: Tensor = cast(RetNet, self.sequence_model).first_projections(torch.cat([codes, actions, u]))
        return table

    def _projected(self, tokens: Tensor, actions: Tensor, num_predicted: int, table: Tensor | None) -> Tensor | None:
        """Of blocks (B, T, K) and (B, T), and of u for `num_predicted` blocks: rows (B, .., 4 E) of a table if there is one."""
        if table is None:
            return None
        A, K = self.action_embedding.num_embeddings, self.tokens_per_obs
        N = len(table) - A - K
        real = torch.cat([tokens, actions.unsqueeze(2) + N], dim=2).flatten(1)
        u = torch.arange(N + A, N + A + K, device=tokens.device).repeat(num_predicted)
        return F.embedding(torch.cat([real, u.expand(len(real), -1)], dim=1), table)


def _head(embed_dim: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, num_classes))


def _init_as_gpt(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def _token_mask(observed: Tensor, tokens: Tensor, first: int) -> Tensor:
    """Of the observations that carry loss (B, P), their tokens (B, P, K): all, but for a segment's very first."""
    mask = observed[..., None].expand_as(tokens)
    if first == 0:
        mask = mask & (torch.arange(tokens[0].numel(), device=tokens.device) > 0).view(tokens.shape[1:])
    return mask


def _cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor, num_unmasked: Tensor) -> Tensor:
    """Sum over the positions where mask, over `num_unmasked` (scalar, at least 1); logits (..., N), targets and mask (...)."""
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    # filled, not a product: a masked position must not leak even a NaN.
    return losses.masked_fill(~mask.flatten(), 0.0).sum() / num_unmasked.clamp(min=1)
