"""Files as published, of any size, with random weights; written down here without a look at the package's own tables."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from remctl.weights import lpips_shapes

Tensors = dict[str, Tensor]

# Small ones that the runs of `tests.tiny` have.
REM_SIZES = (
    "environment.frame_size=32",
    "tokenizer.grid_size=4",
    "tokenizer.channels=[8, 16, 24, 32]",
    "tokenizer.num_codes=10",
    "tokenizer.embed_dim=16",
    "world_model.embed_dim=16",
    "world_model.num_layers=2",
    "world_model.num_heads=2",
    "world_model.ffn_dim=24",
    "controller.conv_channels=[6, 5]",
    "controller.hidden_dim=12",
)
IRIS_SIZES = (
    "environment.frame_size=32",
    "tokenizer.grid_size=4",
    "tokenizer.channels=[32, 32, 64, 64]",
    "tokenizer.num_res_blocks=1",
    "tokenizer.attention_resolutions=[8]",
    "tokenizer.num_codes=10",
    "tokenizer.embed_dim=12",
    "world_model.embed_dim=32",
    "world_model.num_layers=2",
    "world_model.ffn_dim=24",
    "world_model.sequence_blocks=3",
    "imagination.horizon=3",
    "controller.hidden_dim=12",
)


class _Sizes:
    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.made: Tensors = {}

    def add(self, key: str, *shape: int) -> None:
        self.made[key] = torch.randn(shape, generator=self.random) * 0.3

    def layer(self, key: str, *shape: int) -> None:
        self.add(f"{key}.weight", *shape)
        self.add(f"{key}.bias", shape[0])

    def conv(self, key: str, c_in: int, c_out: int, size: int = 3) -> None:
        self.layer(key, c_out, c_in, size, size)

    def lpips(self) -> None:
        self.add("tokenizer.lpips.scaling_layer.shift", 1, 3, 1, 1)
        self.add("tokenizer.lpips.scaling_layer.scale", 1, 3, 1, 1)
        slices = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}
        for i, part in slices.items():
            self.layer(f"tokenizer.lpips.net.slice{part}.{i}", *lpips_shapes()[f"features.{i}.weight"])
        for i, c in enumerate((64, 128, 256, 512, 512)):
            self.add(f"tokenizer.lpips.lin{i}.model.1.weight", 1, c, 1, 1)


def rem_file(
    channels: tuple[int, ...] = (8, 16, 24, 32),
    E: int = 16,
    N: int = 10,
    K: int = 16,
    layers: int = 2,
    heads: int = 2,
    ffn: int = 24,
    convs: tuple[int, ...] = (6, 5),
    hidden: int = 12,
    A: int = 3,
    lpips: bool = False,
    spare: int = 1,
    grid: int = 4,
    seed: int = 0,
) -> Tensors:
    """As the listing of a published file has it. Names that it does not have are made up: nobody knows them."""
    s = _Sizes(seed)
    up = channels[::-1]
    v = "tokenizer."
    s.conv(f"{v}encoder.in_conv", 3, channels[0])
    for i, (a, b) in enumerate(zip(channels, channels[1:], strict=False)):
        s.layer(f"{v}encoder.blocks.{i}.0", a)
        s.conv(f"{v}encoder.blocks.{i}.2.conv", a, b)
        s.conv(f"{v}encoder.blocks.{i}.3", b, b)
    s.layer(f"{v}encoder.out_conv.0", channels[-1])
    s.conv(f"{v}encoder.out_conv.2", channels[-1], up[0])
    s.conv(f"{v}pre_quant_conv", up[0], E, 1)
    s.add(f"{v}embedding.weight", N, E)
    s.conv(f"{v}post_quant_conv", E, up[0], 1)
    s.conv(f"{v}decoder.in_conv", up[0], up[0])
    for i, (a, b) in enumerate(zip(up, up[1:], strict=False)):
        s.layer(f"{v}decoder.blocks.{i}.0", a)
        s.conv(f"{v}decoder.blocks.{i}.2.conv", a, b)
        s.conv(f"{v}decoder.blocks.{i}.3", b, b)
    s.layer(f"{v}decoder.out_block.0", up[-1])
    s.conv(f"{v}decoder.out_block.2", up[-1], 3)
    if lpips:
        s.lpips()
    m = "world_model."
    for name, out in (("observations", N), ("rewards", 3), ("ends", 2)):
        s.layer(f"{m}head_{name}.0", E, E)
        s.layer(f"{m}head_{name}.2", out, E)
    s.add(f"{m}embedding.weight", N + A + spare, E)
    for i in range(layers):
        one = f"{m}_model.layers.{i}."
        s.layer(f"{one}norm1", E)
        D = E // heads
        s.made[f"{one}retention.thetas"] = (10_000 ** -torch.linspace(0, 1, D // 2)).repeat_interleave(2)
        for name in ("q_proj", "k_proj", "v_proj", "g_proj", "out_proj"):
            s.layer(f"{one}retention.{name}", E, E)
        s.layer(f"{one}norm2", E)
        s.layer(f"{one}linear1", ffn, E)
        s.layer(f"{one}linear2", E, ffn)
    s.add(f"{m}queries.weight", K + spare, E)
    c = "actor_critic."
    for i, (a, b) in enumerate(zip((E, *convs), convs, strict=False)):
        s.conv(f"{c}cnn.{2 * i}", a, b)
    s.layer(f"{c}into", hidden, convs[-1] * grid**2)
    s.layer(f"{c}value", 1, hidden)
    s.layer(f"{c}policy", A, hidden)
    s.add(f"{c}told.weight", A, hidden)
    for side in ("ih", "hh"):
        s.add(f"{c}memory.weight_{side}", 4 * hidden, hidden)
        s.add(f"{c}memory.bias_{side}", 4 * hidden)
    return s.made


def iris_file(
    widths: tuple[int, ...] = (32, 32, 64, 64),
    attended: tuple[int, ...] = (2,),
    blocks: int = 1,
    N: int = 10,
    E_v: int = 12,
    E: int = 32,
    layers: int = 2,
    ffn: int = 24,
    window: int = 3 * 17,
    K: int = 16,
    hidden: int = 12,
    lstm_in: int = 256,
    A: int = 3,
    seed: int = 0,
) -> Tensors:
    """As IRIS is described: VQGAN's networks, minGPT's Transformer, a CNN with an LSTM. `attended`: levels with attention."""
    s = _Sizes(seed)
    v = "tokenizer."

    def residual(key: str, a: int, b: int) -> None:
        s.layer(f"{key}.norm1", a)
        s.conv(f"{key}.conv1", a, b)
        s.layer(f"{key}.norm2", b)
        s.conv(f"{key}.conv2", b, b)
        if a != b:
            s.conv(f"{key}.nin_shortcut", a, b, 1)

    def attention(key: str, c: int) -> None:
        s.layer(f"{key}.norm", c)
        for name in ("q", "k", "v", "proj_out"):
            s.conv(f"{key}.{name}", c, c, 1)

    def middle(part: str) -> None:
        residual(f"{v}{part}.mid.block_1", widths[-1], widths[-1])
        attention(f"{v}{part}.mid.attn_1", widths[-1])
        residual(f"{v}{part}.mid.block_2", widths[-1], widths[-1])

    s.conv(f"{v}encoder.conv_in", 3, widths[0])
    c = widths[0]
    for level, width in enumerate(widths):
        for i in range(blocks):
            residual(f"{v}encoder.down.{level}.block.{i}", c, width)
            c = width
            if level in attended:
                attention(f"{v}encoder.down.{level}.attn.{i}", c)
        if level + 1 < len(widths):
            s.conv(f"{v}encoder.down.{level}.downsample.conv", c, c)
    middle("encoder")
    s.layer(f"{v}encoder.norm_out", c)
    s.conv(f"{v}encoder.conv_out", c, E_v)
    s.conv(f"{v}pre_quant_conv", E_v, E_v, 1)
    s.add(f"{v}embedding.weight", N, E_v)
    s.conv(f"{v}post_quant_conv", E_v, E_v, 1)
    s.conv(f"{v}decoder.conv_in", E_v, c)
    middle("decoder")
    for level in reversed(range(len(widths))):
        for i in range(blocks + 1):
            residual(f"{v}decoder.up.{level}.block.{i}", c, widths[level])
            c = widths[level]
            if level in attended:
                attention(f"{v}decoder.up.{level}.attn.{i}", c)
        if level:
            s.conv(f"{v}decoder.up.{level}.upsample.conv", c, c)
    s.layer(f"{v}decoder.norm_out", c)
    s.conv(f"{v}decoder.conv_out", c, 3)
    m = "world_model."
    s.add(f"{m}pos_emb.weight", window, E)
    for i in range(layers):
        one = f"{m}transformer.blocks.{i}."
        s.layer(f"{one}ln1", E)
        s.layer(f"{one}ln2", E)
        s.made[f"{one}attn.mask"] = torch.tril(torch.ones(window, window))
        for name in ("key", "query", "value", "proj"):
            s.layer(f"{one}attn.{name}", E, E)
        s.layer(f"{one}mlp.0", ffn, E)
        s.layer(f"{one}mlp.2", E, ffn)
    s.layer(f"{m}transformer.ln_f", E)
    s.add(f"{m}embedder.embedding_tables.0.weight", A, E)
    s.add(f"{m}embedder.embedding_tables.1.weight", N, E)
    at = torch.arange(window)
    for name, out in (("observations", N), ("rewards", 3), ("ends", 2)):
        read = at % (K + 1) != K - 1 if name == "observations" else at % (K + 1) == K
        s.made[f"{m}head_{name}.indices"] = at[read]
        s.layer(f"{m}head_{name}.head_module.0", E, E)
        s.layer(f"{m}head_{name}.head_module.2", out, E)
    for i, (a, b) in enumerate(((3, 32), (32, 32), (32, 64), (64, 64)), 1):
        s.conv(f"actor_critic.conv{i}", a, b)
    for side, width in (("ih", lstm_in), ("hh", hidden)):
        s.add(f"actor_critic.lstm.weight_{side}", 4 * hidden, width)
        s.add(f"actor_critic.lstm.bias_{side}", 4 * hidden)
    s.layer("actor_critic.critic_linear", 1, hidden)
    s.layer("actor_critic.actor_linear", A, hidden)
    return s.made


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path
