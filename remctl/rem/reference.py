"""The obvious forms, kept for tests: retention token by token, and POP as a loop over blocks.

Slow and plain on purpose: one token at a time through the recurrent form (Sun et al. 2023, Eq. 6), no batching of
blocks, no shared projections. Evaluation mode only (no dropout).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from remctl.rem.retnet import RetNet, RetNetOutput, State


def pop_loop(
    net: RetNet, real: Tensor, state: State, start: int = 0, prediction: Tensor | None = None, first_predicted: int = 0
) -> RetNetOutput:
    """The same contract and shapes as `RetNet.forward`: real (B, T, n, E), prediction (B, P, K, E).

    For each block: predict it with u from the state before it, then consume it.
    """
    assert not net.training
    outputs, predictions = [], []
    num_blocks, n = real.shape[1:3]
    for j in range(num_blocks + 1):
        if prediction is not None and 0 <= j - first_predicted < prediction.shape[1]:
            guess, _ = run_tokens(net, prediction[:, j - first_predicted], state, start + j * n)
            predictions.append(guess)
        if j < num_blocks:
            out, state = run_tokens(net, real[:, j], state, start + j * n)
            outputs.append(out)
    return RetNetOutput(torch.stack(outputs, 1), torch.stack(predictions, 1) if predictions else None, state)


def run_tokens(net: RetNet, x: Tensor, state: State, start: int) -> tuple[Tensor, State]:
    """(B, n, E) one token at a time from absolute position `start`."""
    outputs = []
    for i in range(x.shape[1]):
        y, state = _token(net, x[:, i], state, start + i)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def _token(net: RetNet, x: Tensor, state: State, position: int) -> tuple[Tensor, State]:
    new_state = []
    for layer, s in zip(net.decoder.layers, state, strict=True):
        h = layer.norm1(x)
        q, k, v, gate = (getattr(layer.retention, f"{name}_proj")(h) for name in "qkvg")
        q, k, v = (t.view(x.shape[0], net.num_heads, net.head_dim) for t in (q, k, v))
        q, k = _rotate_complex(q, position, net), _rotate_complex(k, position, net) / net.head_dim**0.5
        s = net.tables.rates_H.to(x).view(1, -1, 1, 1) * s + k.unsqueeze(-1) * v.unsqueeze(-2)
        retained = F.layer_norm((q.unsqueeze(-2) @ s).squeeze(-2), (net.head_dim,), eps=layer.retention.group_norm.eps)
        x = x + layer.retention.out_proj(F.silu(gate) * retained.flatten(1))
        x = x + layer.linear2(net.ffn_activation(layer.linear1(layer.norm2(x))))
        new_state.append(s)
    return x, new_state


def _rotate_complex(x: Tensor, position: int, net: RetNet) -> Tensor:
    """Neighbouring pairs as complex numbers times e^(i position theta)."""
    turn = torch.polar(torch.ones_like(net.tables.thetas), position * net.tables.thetas).to(x.device)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn.to(pairs.dtype)).flatten(-2)
