"""IRIS' published state dict (Micheli et al. 2023): docs/checkpoints.md has the table, from descriptions alone.

Its tokenizer is VQGAN's (Esser et al. 2021) and its Transformer minGPT's, whose names it uses. What is one matrix for q, k
and v here are three there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from remctl.config import RunConfig
from remctl.exchange.layout import Link, Rows

Tensors = dict[str, Tensor]
QKV = ("query", "key", "value")
OF_BLOCK = {
    "layers.0": "norm1",
    "layers.2": "conv1",
    "layers.3": "norm2",
    "layers.5": "conv2",
    "shortcut": "nin_shortcut",
    "projection": "proj_out",
}
OF_V = {"pre_quantization": "pre_quant_conv", "codebook": "embedding", "post_quantization": "post_quant_conv"}
OF_M = {
    "transformer.position_embedding": "pos_emb",
    "transformer.norm": "transformer.ln_f",
    "action_embedding": "embedder.embedding_tables.0",
    "observation_embedding": "embedder.embedding_tables.1",
    "observation_head": "head_observations.head_module",
    "reward_head": "head_rewards.head_module",
    "end_head": "head_ends.head_module",
}
OF_LAYER = {"norm1": "ln1", "projection": "attn.proj", "norm2": "ln2", "linear1": "mlp.0", "linear2": "mlp.2"}
OF_C = {
    "encoder.0": "conv1",
    "encoder.3": "conv2",
    "encoder.6": "conv3",
    "encoder.9": "conv4",
    "actor": "actor_linear",
    "critic": "critic_linear",
    "lstm": "lstm",
}


class Iris:
    """VQGAN's networks, a causal Transformer, C on decoded frames: the baseline in any size."""

    name = "iris"
    preset = "iris"
    mark = "world_model.transformer.blocks."
    holds: Mapping[str, Any] = {
        "tokenizer.architecture": "vqgan",
        "tokenizer.num_groups": 32,
        "tokenizer.norm_eps": 1e-6,
        "world_model.architecture": "transformer",
        "world_model.observation_embeddings": "separate",
        "world_model.num_heads": 4,
        "world_model.ffn_activation": "gelu",
        "world_model.layer_norm_eps": 1e-5,
        "controller.observes": "frames",
        "controller.action_inputs": False,
    }

    def sizes(self, tensors: Tensors, config: RunConfig) -> dict[str, Any]:
        """Widths, depths, the grid and M's window, from {key: tensor}."""
        levels = sorted({int(m[1]) for m in _matches(tensors, r"tokenizer\.encoder\.down\.(\d+)\..*")})
        found: dict[str, Any] = {}
        if levels:
            grid = config.environment.frame_size >> (len(levels) - 1)
            found |= {"tokenizer.grid_size": grid} | _widths(tensors, levels, config)
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        blocks = sum(1 for _ in _matches(tensors, r"world_model\.transformer\.blocks\.(\d+)\.ln1\.weight"))
        for name, key, axis in (
            ("tokenizer.num_codes", "tokenizer.embedding.weight", 0),
            ("tokenizer.embed_dim", "tokenizer.embedding.weight", 1),
            ("world_model.embed_dim", "world_model.pos_emb.weight", 1),
            ("world_model.ffn_dim", "world_model.transformer.blocks.0.mlp.0.weight", 0),
            ("controller.hidden_dim", "actor_critic.lstm.weight_hh", 1),
        ):
            if len(shapes.get(key, ())) > axis:
                found[name] = shapes[key][axis]
        if positions := shapes.get("world_model.pos_emb.weight"):
            grid = found.get("tokenizer.grid_size", config.tokenizer.grid_size)
            found["world_model.sequence_blocks"] = positions[0] // (grid**2 + 1)
        return found | ({"world_model.num_layers": blocks} if blocks else {})

    def num_actions(self, tensors: Tensors) -> int | None:
        """Rows of the actor of {key: tensor}."""
        actor = tensors.get("actor_critic.actor_linear.weight")
        return None if actor is None or actor.ndim == 0 else actor.shape[0]

    def names(self, tensors: Tensors, ours: Tensors) -> dict[str, str]:
        """None of {key: tensor}: all are known."""
        return {}

    def links(self, config: RunConfig, ours: Tensors, names: Mapping[str, str]) -> list[Link]:
        """All of `ours` {key: tensor}."""
        places = _places(config)
        return [link for name, tensor in ours.items() for link in _links(name, tensor, places)]

    def rest(self, config: RunConfig, ours: Tensors, names: Mapping[str, str]) -> Tensors:
        """Buffers {key: tensor}: the causal masks, and which positions each head reads."""
        m, block = config.world_model, config.tokenizer.tokens_per_obs + 1
        size = m.sequence_blocks * block
        places = [f"world_model.transformer.blocks.{i}.attn.mask" for i in range(m.num_layers)]
        masks = {name: torch.tril(torch.ones(size, size)) for name in places}
        every, action = torch.arange(size), torch.arange(block - 1, size, block)
        predicting = every[every % block != block - 2]  # all but the last token of an observation, which predicts none
        heads = {"observations": predicting, "rewards": action, "ends": action}
        return masks | {f"world_model.head_{name}.indices": rows for name, rows in heads.items()}

    def refuse(self, tensors: Tensors, ours: Tensors) -> str | None:
        """Why attention is not the one here: a mask of {key: tensor} that is not causal."""
        masks = {key: tensor for key, tensor in tensors.items() if key.endswith(".attn.mask")}
        bad = next(
            (key for key, mask in masks.items() if not torch.equal(mask, torch.tril(torch.ones_like(mask)))), None
        )
        return (
            f"{bad} is not causal (it may be world_model.attention=block-causal there), as it is here" if bad else None
        )


def _links(name: str, tensor: Tensor, places: Mapping[str, str]) -> Iterator[Link]:
    """Of one of ours (any shape)."""
    component, _, rest = name.partition(".")
    path, _, leaf = rest.rpartition(".")
    if component == "controller":
        yield Link(f"actor_critic.{OF_C[path]}.{leaf}", name)
    elif component == "world_model":
        yield from _links_of_m(name, path, leaf, tensor)
    elif path in OF_V:
        yield Link(f"tokenizer.{OF_V[path]}.{leaf}", name)
    else:
        part, number, inner = (*path.split(".", 2), "")[:3]
        place = f"tokenizer.{places[f'{part}.{number}']}"
        if inner == "qkv":
            yield from (
                Link(f"{place}.{n}.{leaf}", name, None, rows) for n, rows in zip("qkv", _thirds(tensor), strict=True)
            )
        else:
            inner = OF_BLOCK.get(inner, inner)
            yield Link(".".join(filter(None, (place, inner, leaf))), name)


def _links_of_m(name: str, path: str, leaf: str, tensor: Tensor) -> Iterator[Link]:
    layer = re.fullmatch(r"transformer\.layers\.(\d+)\.(\w+)", path)
    if layer is None:
        known = next(ours for ours in OF_M if path == ours or path.startswith(f"{ours}."))
        yield Link(f"world_model.{OF_M[known]}{path.removeprefix(known)}.{leaf}", name)
        return
    place = f"world_model.transformer.blocks.{layer[1]}"
    if layer[2] == "qkv":
        yield from (
            Link(f"{place}.attn.{n}.{leaf}", name, None, rows) for n, rows in zip(QKV, _thirds(tensor), strict=True)
        )
    else:
        yield Link(f"{place}.{OF_LAYER[layer[2]]}.{leaf}", name)


def _thirds(tensor: Tensor) -> list[Rows]:
    third = tensor.shape[0] // 3
    return [(i * third, (i + 1) * third) for i in range(3)]


def _places(config: RunConfig) -> dict[str, str]:
    """VQGAN's name of each module of the encoder and the decoder: `encoder.1` is encoder.down.0.block.0."""
    v = config.tokenizer
    num_levels = (config.environment.frame_size // v.grid_size).bit_length()
    sizes = [config.environment.frame_size >> i for i in range(num_levels)]

    def level(prefix: str, size: int, num_blocks: int) -> Iterator[str | None]:
        for i in range(num_blocks):
            yield f"{prefix}.block.{i}"
            if size in v.attention_resolutions:
                yield f"{prefix}.attn.{i}"

    encoder: list[str | None] = ["conv_in"]
    decoder: list[str | None] = ["conv_in", *_MIDDLE]
    for i, size in enumerate(sizes):
        encoder += level(f"down.{i}", size, v.num_res_blocks)
        encoder += [None, f"down.{i}.downsample.conv"] if i + 1 < num_levels else []
    for i in reversed(range(num_levels)):
        decoder += level(f"up.{i}", sizes[i], v.num_res_blocks + 1)
        decoder += [None, f"up.{i}.upsample.conv"] if i else []
    parts = {"encoder": [*encoder, *_MIDDLE, *_OUT], "decoder": [*decoder, *_OUT]}
    return {f"{part}.{i}": f"{part}.{name}" for part, found in parts.items() for i, name in enumerate(found) if name}


_MIDDLE = ("mid.block_1", "mid.attn_1", "mid.block_2")
_OUT = ("norm_out", None, "conv_out")


def _widths(tensors: Tensors, levels: list[int], config: RunConfig) -> dict[str, Any]:
    """Channels, blocks and attention by level."""
    found: dict[str, Any] = {}
    last = [tensors.get(f"tokenizer.encoder.down.{i}.block.0.conv2.weight") for i in levels]
    widths = [t.shape[0] for t in last if t is not None and t.ndim]
    given = config.tokenizer.channels
    if len(widths) == len(levels):
        as_given = [given[min(i, len(given) - 1)] for i in range(len(levels))] == widths
        found["tokenizer.channels"] = list(given) if as_given else widths
    attended = {int(m[1]) for m in _matches(tensors, r"tokenizer\.encoder\.down\.(\d+)\.attn\..*")}
    sizes = [config.environment.frame_size >> i for i in levels if i in attended]
    possible = [
        s for s in config.tokenizer.attention_resolutions if s in [config.environment.frame_size >> i for i in levels]
    ]
    as_given = set(sizes) == set(possible)
    found["tokenizer.attention_resolutions"] = list(config.tokenizer.attention_resolutions) if as_given else sizes
    blocks = sum(1 for _ in _matches(tensors, r"tokenizer\.encoder\.down\.0\.block\.(\d+)\.norm1\.weight"))
    return found | ({"tokenizer.num_res_blocks": blocks} if blocks else {})


def _matches(tensors: Tensors, pattern: str) -> Iterator[re.Match[str]]:
    return filter(None, (re.fullmatch(pattern, key) for key in tensors))
