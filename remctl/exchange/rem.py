"""REM's published state dict (Cohen et al. 2024): docs/checkpoints.md has the table.

A listing of a published file gives names and shapes as far as M's third layer; the further layers are named alike. It does not
give the names of the prediction tokens and of the controller: those are found by their shapes, of which each has its own.

M's layers are yet-another-retnet's there and here, so that rows of q and k stand in the same order: neighbouring pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from remctl.config import RunConfig
from remctl.exchange.layout import Link

Tensors = dict[str, Tensor]
TABLE = "world_model.embedding.weight"
ACTIONS, PREDICTION = "world_model.action_embedding.weight", "world_model.prediction_embedding.weight"
HEADS = {"observation_head": "head_observations", "reward_head": "head_rewards", "end_head": "head_ends"}
LAYERS = ("world_model.retnet.decoder.layers", "world_model._model.layers")
CONTROLLER = "actor_critic"
NUM_SPARE = 1  # rows after the actions in M's table, and after the prediction tokens, that nothing reads


class Rem:
    """V of convolutions, M a RetNet with POP, C on code vectors: the paper's agent in any size."""

    name = "rem"
    preset = "paper"
    mark = f"{LAYERS[1]}."
    holds: Mapping[str, Any] = {
        "tokenizer.architecture": "convolutional",
        "tokenizer.num_groups": 8,
        "tokenizer.norm_eps": 1e-6,
        "world_model.architecture": "retnet",
        "world_model.observation_prediction": "pop",
        "world_model.observation_embeddings": "tokenizer",
        "world_model.prediction_tokens": "separate",
        "world_model.ffn_activation": "swish",
        "world_model.decay": "log_linear",
        "world_model.layer_norm_eps": 1e-6,
        "controller.observes": "codes",
        "controller.action_inputs": True,
    }

    def sizes(self, tensors: Tensors, config: RunConfig) -> dict[str, Any]:
        """Widths, depths and the grid, from {key: tensor}."""
        found = _sizes_of_v(tensors, config) | _sizes_of_m(tensors)
        layers = _layers(tensors)
        hidden = _hidden(layers)
        convolutions = _chain(layers, found.get("tokenizer.embed_dim"))
        return (
            found
            | ({"controller.hidden_dim": hidden} if hidden else {})
            | ({"controller.conv_channels": convolutions} if convolutions else {})
        )

    def num_actions(self, tensors: Tensors) -> int | None:
        """Rows of the layer of {key: tensor} that reads the LSTM's state and is neither the critic nor part of the encoder."""
        layers = _layers(tensors)
        hidden = _hidden(layers)
        shapes = [leaves["weight"] for leaves in layers.values() if leaves.keys() == {"weight", "bias"}]
        return next((s[0] for s in shapes if len(s) == 2 and s[1] == hidden and s[0] not in (1, hidden)), None)

    def names(self, tensors: Tensors, ours: Tensors) -> dict[str, str]:
        """Of prediction tokens and C in {key: tensor}, by keys of `ours` {key: tensor}; equal layers by their order."""
        listed = (TABLE, f"{LAYERS[1]}.", *(f"world_model.{head}." for head in HEADS.values()))
        tables = [
            k for k, t in tensors.items() if k.startswith("world_model.") and not k.startswith(listed) and t.ndim == 2
        ]
        found = {PREDICTION: tables[0]} if len(tables) == 1 else {}
        theirs = _layers(tensors)
        for path, leaves in _layers(ours, own=True).items():
            match = next((other for other, shapes in theirs.items() if shapes == leaves), None)
            if match is not None:
                del theirs[match]
                found |= {f"{path}.{leaf}": f"{match}.{leaf}" for leaf in leaves}
        return found

    def links(self, config: RunConfig, ours: Tensors, names: Mapping[str, str]) -> list[Link]:
        """All of `ours` {key: tensor}; in the order of the listing."""
        num_actions, num_codes = ours[ACTIONS].shape[0], config.tokenizer.num_codes
        num_blocks = len(config.tokenizer.widths(config.environment.frame_size)[0]) - 1
        made = [Link(_key(name, num_blocks, names), name) for name in ours if name not in (ACTIONS, PREDICTION)]
        made.append(Link(TABLE, ACTIONS, (num_codes, num_codes + num_actions)))
        made.append(Link(names.get(PREDICTION, PREDICTION), PREDICTION, (0, ours[PREDICTION].shape[0])))
        heads = tuple(f"world_model.{head}." for head in HEADS.values())
        order: tuple[str | tuple[str, ...], ...] = ("tokenizer.", heads, TABLE, f"{LAYERS[1]}.", "world_model.", "")
        return sorted(made, key=lambda link: next(i for i, part in enumerate(order) if link.key.startswith(part)))

    def rest(self, config: RunConfig, ours: Tensors, names: Mapping[str, str]) -> Tensors:
        """M's table {key: tensor}, with the codes before the actions (read from V here and there), and that of predictions."""
        codes, actions = ours["tokenizer.codebook.weight"], ours[ACTIONS]
        predictions = actions.new_zeros(config.tokenizer.tokens_per_obs + NUM_SPARE, actions.shape[1])
        table = torch.cat([codes, torch.zeros_like(actions), actions.new_zeros(NUM_SPARE, actions.shape[1])])
        return {TABLE: table, names.get(PREDICTION, PREDICTION): predictions}

    def refuse(self, tensors: Tensors, ours: Tensors) -> str | None:
        """Why positions turn by other angles than here: {key: tensor} of the file and of `ours` hold them."""
        for key in tensors:
            if key.endswith(".retention.thetas"):
                mine = ours[key.replace(LAYERS[1], LAYERS[0])]
                if not torch.allclose(tensors[key].float(), mine.float(), rtol=0.01, atol=1e-5):
                    return (
                        f"{key} turns positions by other angles than neighbouring pairs of q and k are turned by here"
                    )
        return None


def _key(ours: str, blocks: int, names: Mapping[str, str]) -> str:
    """Of a tensor that is one in the file."""
    component, _, rest = ours.partition(".")
    if component == "controller":
        return names.get(ours, f"{CONTROLLER}.{rest}")
    if component == "world_model":
        head, _, tail = rest.partition(".")
        return f"world_model.{HEADS[head]}.{tail}" if head in HEADS else ours.replace(*LAYERS)
    part, number, tail = (*rest.split(".", 2), "")[:3]
    if part not in ("encoder", "decoder"):
        return f"tokenizer.{_QUANTIZATION[part]}.{number}"
    return f"tokenizer.{part}.{_place(part, int(number), tail, blocks)}"


_QUANTIZATION = {
    "pre_quantization": "pre_quant_conv",
    "codebook": "embedding",
    "post_quantization": "post_quant_conv",
}


def _place(part: str, number: int, tail: str, blocks: int) -> str:
    """Of the encoder's or the decoder's module `number`: a convolution, the blocks, then norm, SiLU and convolution."""
    if number == 0:
        return f"in_conv.{tail}"
    if number <= blocks:
        layer, _, leaf = tail.partition(".")
        return f"blocks.{number - 1}.{ {'0': '0', '3': '2.conv', '4': '3'}[layer] }.{leaf}"
    return f"{'out_conv' if part == 'encoder' else 'out_block'}.{number - blocks - 1}.{tail}"


# --- sizes


def _sizes_of_v(tensors: Tensors, config: RunConfig) -> dict[str, Any]:
    first, codes = tensors.get("tokenizer.encoder.in_conv.weight"), tensors.get("tokenizer.embedding.weight")
    downs = _numbered(tensors, r"tokenizer\.encoder\.blocks\.(\d+)\.3\.weight")
    found: dict[str, Any] = {}
    if first is not None and first.ndim and downs and all(t.ndim for t in downs):
        grid = config.environment.frame_size >> len(downs)
        found["tokenizer.grid_size"] = grid
        widths = [first.shape[0], *(t.shape[0] for t in downs)]
        fitting = config.tokenizer.model_copy(update={"grid_size": max(grid, 1)})
        as_given = fitting.widths(config.environment.frame_size)[0] == widths
        found["tokenizer.channels"] = list(config.tokenizer.channels) if as_given else widths
    if codes is not None and codes.ndim == 2:
        found |= {"tokenizer.num_codes": codes.shape[0], "tokenizer.embed_dim": codes.shape[1]}
    return found


def _sizes_of_m(tensors: Tensors) -> dict[str, Any]:
    first = f"{LAYERS[1]}.0."
    width, hidden, thetas = (tensors.get(first + n) for n in ("norm1.weight", "linear1.weight", "retention.thetas"))
    num_layers = len(_numbered(tensors, rf"{re.escape(LAYERS[1])}\.(\d+)\.norm1\.weight"))
    found: dict[str, Any] = {"world_model.num_layers": num_layers} if num_layers else {}
    if width is not None and width.ndim:
        found["world_model.embed_dim"] = width.shape[0]
        if thetas is not None and thetas.ndim and 0 < thetas.shape[0] <= width.shape[0]:
            found["world_model.num_heads"] = width.shape[0] // thetas.shape[0]
    return found | ({"world_model.ffn_dim": hidden.shape[0]} if hidden is not None and hidden.ndim else {})


def _numbered(tensors: Tensors, pattern: str) -> list[Tensor]:
    """Those whose key is like the pattern, by the number in it."""
    found = {int(match[1]): t for key, t in tensors.items() if (match := re.fullmatch(pattern, key))}
    return [found[number] for number in sorted(found)]


def _layers(tensors: Tensors, own: bool = False) -> dict[str, dict[str, tuple[int, ...]]]:
    """C's layers in their order: shapes by what stands after the last dot."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in tensors.items():
        if key.startswith("controller.") if own else not key.startswith(("tokenizer.", "world_model.")):
            path, _, leaf = key.rpartition(".")
            found.setdefault(path, {})[leaf] = tuple(tensor.shape)
    return found


def _chain(layers: Mapping[str, Mapping[str, tuple[int, ...]]], width: int | None) -> list[int]:
    """Channels that C's convolutions put out, the first one's input being of `width`, and each other's the output before."""
    left = [leaves["weight"] for leaves in layers.values() if len(leaves.get("weight", ())) == 4]
    found: list[int] = []
    while (shape := next((s for s in left if s[1] == width), None)) is not None:
        left.remove(shape)
        found.append(width := shape[0])
    return found


def _hidden(layers: Mapping[str, Mapping[str, tuple[int, ...]]]) -> int | None:
    """Width of the LSTM."""
    recurrent: Iterable[tuple[int, ...]] = (leaves.get("weight_hh", ()) for leaves in layers.values())
    return next((shape[1] for shape in recurrent if len(shape) == 2), None)
