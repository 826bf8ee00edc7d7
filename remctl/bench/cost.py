"""The analytic cost of M: sequential calls, operations, FLOPs and bytes, derived in docs/cost-model.md. Imports no torch.

B batch, K tokens per observation, n = K+1 tokens per block, E embedding, F feed-forward width, H heads, D = E/H, L layers,
N vocabulary, c blocks per chunk, R rows that go through a layer. A FLOP is a multiplication or an addition of a matrix
product; an operation is an ATen operation that computes (not one that only moves or converts data), without autograd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from remctl.config import RunConfig, WorldModelConfig

REWARDS, ENDS = 3, 2
STATE_BYTES = 4  # kept in float32
BACKWARD = 2  # a matrix product has two products as its gradient
# Operations of a RetNet layer (rem/retnet.py): norm; q, k, v, gate as one product with two tables side by side; rotation
# (1/sqrt(D) is in its table); states of the blocks; retention; a last token's reading of a state; chunks side by side,
# head norm, gate, output, feed-forward network; padding.
NORM, PROJECT, ROTATE, STATES, RETAIN, READ, JOIN, KEEP = 1, 3, 1, 4, 6, 1, 1, 1
GATED_OUTPUT, FEED_FORWARD = 4, 4
REST_OF_LAYER = JOIN + NORM + GATED_OUTPUT + NORM + FEED_FORWARD
# Of a Transformer layer (iris/transformer.py): norm, q-k-v, attention, projection, sum; norm, feed-forward network.
TRANSFORMER_LAYER = 5 + NORM + FEED_FORWARD
POSITIONS = 3  # indices, their embeddings, sum
SAMPLE = 8  # temperature, softmax, cumulative sum, random number, product, comparison, sum, clamp


@dataclass(frozen=True)
class Cost:
    """Of some work of M over a whole batch. `operations` is None where the model makes no claim (training)."""

    calls: int = 0
    operations: int | None = 0
    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        known = self.operations is not None and other.operations is not None
        operations = (self.operations or 0) + (other.operations or 0) if known else None
        return Cost(self.calls + other.calls, operations, self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Call:
    """One pass of the sequence model: `blocks` of `block_len` real tokens behind `held` ones, and `predicted` blocks of u.

    `masked`: some blocks are padding. `pruned`: of the last layer's real tokens only the blocks' last ones are read.
    `predicts_next`: one of the predicted blocks is the one behind the last real one.
    """

    batch_size: int
    blocks: int
    block_len: int
    predicted: int = 0
    held: int = 0
    masked: bool = False
    pruned: bool = False
    predicts_next: bool = False

    @property
    def rows(self) -> int:
        """Real tokens of one sequence."""
        return self.blocks * self.block_len


class CostModel:
    """Of the M of one configuration, whose precision is decided; `activation_bytes`: 2 for bf16, 4 for fp32."""

    def __init__(self, config: RunConfig) -> None:
        assert config.runtime.precision != "auto", "a cost is of one precision: decide it with at_precision or settled"
        self.config = config
        self.m: WorldModelConfig = config.world_model
        self.K = config.tokenizer.tokens_per_obs
        self.n = self.K + 1
        self.head_dim = self.m.embed_dim // self.m.num_heads
        self.activation_bytes = 2 if config.runtime.precision == "bf16" else 4
        self.pop = self.m.observation_prediction == "pop"
        self.is_retnet = self.m.architecture == "retnet"

    # What is done

    def imagination(self, batch_size: int) -> list[Cost]:
        """One imagine(): the sequential calls in their order, each with the heads behind it (paper Section 2.3)."""
        steps = self.config.num_rewarded_steps
        T = min(self.m.context_blocks - 1, self.config.imagination.burn_in_frames)
        return [*self._begin(batch_size, T), *self._steps(batch_size, T, steps)]

    def training(self, batch_size: int, part_size: int | None = None) -> list[Cost]:
        """Forward and backward pass of one training step (Algorithm 1): one sequential call for each part of the batch."""
        whole, rest = divmod(batch_size, part_size or batch_size)
        return [self._trained(size) for size in [part_size or batch_size] * whole + [rest] * (rest > 0)]

    def _trained(self, batch_size: int) -> Cost:
        T, first = self.m.sequence_blocks, self.m.first_predicted_block
        call = Call(batch_size, T, self.n, predicted=T - first if self.pop else 0, pruned=self.pop)
        tokens = (T - first) * self.K * self._head_flops(self.config.tokenizer.num_codes)
        actions = T * (self._head_flops(REWARDS) + self._head_flops(ENDS))
        forward = self._call_flops(call) + batch_size * (tokens + actions)
        backward = BACKWARD * forward - batch_size * self._carry_flops(call)  # its table of decays is not trained
        traffic = self._call_bytes(call) * (1 + BACKWARD)
        return Cost(1, None, forward + backward, traffic)

    def _begin(self, batch_size: int, T: int) -> Iterator[Cost]:
        """T context blocks at once; token by token, the current observation too."""
        states = self.m.num_layers if self.is_retnet else 0
        yield Cost(operations=states)  # nothing seen yet: zeros
        if T:
            yield self._call(Call(batch_size, T, self.n, masked=True, pruned=self.pop)) + Cost(operations=3)
        if not self.pop:
            yield self._observe(batch_size, T * self.n)

    def _observe(self, batch_size: int, held: int) -> Cost:
        return self._call(Call(batch_size, 1, self.K, held=held)) + Cost(operations=1)

    def _steps(self, batch_size: int, T: int, steps: int) -> Iterator[Cost]:
        position = T * self.n + (0 if self.pop else self.K)
        window = None if self.is_retnet else self.m.sequence_blocks * self.n
        for _ in range(steps):
            if self.pop:
                yield self._step_pop(batch_size)
                continue
            if window is not None and position + self.n > window:  # IRIS' window is full: only the current one is kept
                yield self._observe(batch_size, 0)
                position = self.K
            yield from self._step_tokens(batch_size, position)
            position += self.n

    def _step_pop(self, batch_size: int) -> Cost:
        """Consume the block and predict the next, layer by layer in one call."""
        call = self._call(Call(batch_size, 1, self.n, predicted=1, pruned=True, predicts_next=True))
        blocks_and_u = Cost(operations=4)  # two embeddings, block, block beside u
        # The input has gaps between rollouts: in float32 torch then adds the bias on its own.
        unfused = int(self.config.runtime.precision == "fp32" and batch_size > 1)
        tokens = self._head(batch_size * self.K, self.config.tokenizer.num_codes, unfused) + self._rewards(batch_size)
        return call + blocks_and_u + tokens

    def _step_tokens(self, batch_size: int, position: int) -> Iterator[Cost]:
        """The action, then each token of the next observation: K+1 calls that wait for each other."""
        one = Call(batch_size, 1, 1)
        token = self._head(batch_size, self.config.tokenizer.num_codes) + Cost(operations=1)
        for i in range(self.n):
            call = self._call(replace(one, held=position + i))
            if i == 0:
                yield call + self._rewards(batch_size) + Cost(operations=2)  # action's embedding, tokens side by side
            else:
                yield call + token

    # What it costs

    def _call(self, call: Call) -> Cost:
        return Cost(1, self._call_operations(call), self._call_flops(call), self._call_bytes(call))

    def _call_operations(self, call: Call) -> int | None:
        m, c = self.m, min(self.m.blocks_per_chunk, call.blocks)
        if not self.is_retnet:
            if call.masked:
                return None  # building and applying the mask is not modelled
            return POSITIONS + NORM + TRANSFORMER_LAYER * m.num_layers
        states = STATES if m.block_states == "parallel" else 2 + 3 * call.blocks
        predicted = (ROTATE + RETAIN) * (call.predicted > 0)
        common = NORM + states + KEEP * call.masked + predicted + REST_OF_LAYER
        layer = common + PROJECT + ROTATE + RETAIN + RETAIN * (call.blocks % c > 0)
        if not call.pruned:
            return layer * m.num_layers
        # keys and values of all, query and gate of the last tokens, u; rows and gates of both side by side
        last = common + 2 * (PROJECT + ROTATE) + READ + PROJECT * (call.predicted > 0) + 2 * JOIN
        return layer * (m.num_layers - 1) + last

    def _call_flops(self, call: Call) -> int:
        m, E, D = self.m, self.m.embed_dim, self.head_dim
        R = call.rows + call.predicted * self.K
        feed_forward = 4 * R * E * m.ffn_dim
        if not self.is_retnet:
            attention = 4 * R * (call.held + R) * E
            return call.batch_size * m.num_layers * (8 * R * E * E + attention + feed_forward)
        c = min(m.blocks_per_chunk, call.blocks)
        chunks = [c * call.block_len] * (call.blocks // c) + [call.blocks % c * call.block_len] * (call.blocks % c > 0)
        states, u = 2 * call.rows * D * E, self._chunk_flops(self.K) * call.predicted
        layer = 10 * R * E * E + feed_forward + states + u + sum(map(self._chunk_flops, chunks))
        layers = m.num_layers * layer
        if call.pruned:
            read = call.blocks + call.predicted * self.K  # rows that go on: the blocks' last tokens, and u
            dense = 4 * call.rows * E * E + 4 * call.blocks * E * E + 8 * call.predicted * self.K * E * E
            dense += 2 * read * E * E + 4 * read * E * m.ffn_dim
            layers += dense + states + u + 2 * call.blocks * D * E - layer
        return call.batch_size * (layers + self._carry_flops(call))

    def _chunk_flops(self, rows: int) -> int:
        """Of a chunk, one layer: scores and values, reading the state."""
        E = self.m.embed_dim
        return 4 * rows * rows * E + 2 * rows * self.head_dim * E

    def _carry_flops(self, call: Call) -> int:
        """Of one sequence, all layers: the states that are read, from the blocks' parts (Eq. 7), by a table of decays."""
        if not self.is_retnet or self.m.block_states == "sequential":
            return 0
        c = min(self.m.blocks_per_chunk, call.blocks)
        reads = -(-call.blocks // c) + call.predicted + (not call.predicts_next)  # the last one in any case
        pruned_reads = call.blocks + call.predicted
        reads = reads * self.m.num_layers + (pruned_reads - reads) * call.pruned
        return reads * 2 * (call.blocks + 1) * self.head_dim * self.m.embed_dim

    def _call_bytes(self, call: Call) -> int:
        """The parameters once per call, each layer's input and output, what is remembered read and written."""
        m, E, B = self.m, self.m.embed_dim, call.batch_size
        R = call.rows + call.predicted * self.K
        activations = 2 * m.num_layers * B * R * E * self.activation_bytes
        if self.is_retnet:
            remembered = 2 * m.num_layers * B * E * self.head_dim * STATE_BYTES
        else:
            remembered = m.num_layers * B * (call.held + 2 * R) * 2 * E * self.activation_bytes
        return self.layer_parameters * m.num_layers * self.activation_bytes + activations + remembered

    @property
    def layer_parameters(self) -> int:
        """Weights and biases of the matrix products of one layer."""
        E, F = self.m.embed_dim, self.m.ffn_dim
        return (5 if self.is_retnet else 4) * (E * E + E) + 2 * E * F + F + E

    def _head_flops(self, classes: int) -> int:
        E = self.m.embed_dim
        return 2 * E * (E + classes)

    def _head(self, rows: int, classes: int, extra: int = 0) -> Cost:
        """Two linear layers and ReLU, then a draw; `extra` operations beside."""
        E = self.m.embed_dim
        weights = (E * (E + classes) + E + classes) * self.activation_bytes
        return Cost(0, 3 + extra + SAMPLE, rows * self._head_flops(classes), weights)

    def _rewards(self, rows: int) -> Cost:
        return self._head(rows, REWARDS) + self._head(rows, ENDS) + Cost(operations=1)


def total(parts: list[Cost]) -> Cost:
    """The sum."""
    return sum(parts, Cost())


def floor_s(parts: list[Cost], flops_per_s: float, bytes_per_s: float) -> float:
    """Seconds of these calls where each costs no more than its arithmetic, or its traffic with memory if that is longer."""
    return sum(max(part.flops / flops_per_s, part.bytes / bytes_per_s) for part in parts)
