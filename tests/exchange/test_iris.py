"""IRIS' published format: the mapping, and what the networks then compute, written out from the file alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.exchange.published import Tensors, iris_file, saved
from tests.exchange.test_rem import agent_of, read, same

K, N, A = 16, 10, 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return saved(tmp_path / "agent.pt", iris_file())


@pytest.fixture
def run(file: Path, take_in: Callable, tmp_path: Path) -> Path:
    assert take_in(file, "iris").status == 0
    return tmp_path / "published/rem/Catch/seed_0"


def test_in_and_out_is_the_same_file(cli: Callable, run: Path, file: Path, tmp_path: Path) -> None:
    assert cli("export", run, "--format", "iris", "--out", tmp_path / "x.pt", "--without-lpips").status == 0
    assert same(read(tmp_path / "x.pt"), read(file))


def test_in_the_published_size(cli: Callable, tmp_path: Path) -> None:
    given = iris_file((64,) * 5, (2, 3), 2, 512, 512, 256, 10, 1024, 340, 16, 512, 1024, 6)
    saved(tmp_path / "Pong.pt", given)
    done = cli("import", tmp_path / "Pong.pt", "--from", "iris", "--game", "Pong", "--out", tmp_path / "run")
    assert (done.status, done.err) == (0, "")
    assert (
        cli("export", tmp_path / "run", "--format", "iris", "--out", tmp_path / "x.pt", "--without-lpips").status == 0
    )
    assert same(read(tmp_path / "x.pt"), given)
    of_m = [t for k, t in given.items() if k.startswith("world_model.") and not k.endswith(("mask", "indices"))]
    assert sum(t.numel() for t in of_m) == 8_448_005


def test_buffers_may_be_missing_and_are_written_as_the_described_code_makes_them(
    cli: Callable, tmp_path: Path, take_in: Callable
) -> None:
    given = iris_file()
    bare = {k: t for k, t in given.items() if not k.endswith((".mask", ".indices"))}
    assert take_in(saved(tmp_path / "bare.pt", bare), "iris", "--out", tmp_path / "run").status == 0
    assert (
        cli("export", tmp_path / "run", "--format", "iris", "--out", tmp_path / "x.pt", "--without-lpips").status == 0
    )
    assert same(read(tmp_path / "x.pt"), given)


def test_another_attention_is_refused(tmp_path: Path, take_in: Callable) -> None:
    given = iris_file()
    given["world_model.transformer.blocks.1.attn.mask"][:5, :5] = 1
    done = take_in(saved(tmp_path / "block.pt", given), "iris", "--out", tmp_path / "run")
    assert done.status == 2
    assert "blocks.1.attn.mask is not causal" in done.err
    assert not (tmp_path / "run").exists()


def minigpt(file: Tensors, tokens: Tensor, actions: Tensor) -> Tensor:
    """Blocks of tokens (T, K) and actions (T,) through embeddings, layers and the final norm: (R, E)."""
    w = {key.removeprefix("world_model."): t for key, t in file.items()}
    acts, codes = (w[f"embedder.embedding_tables.{i}.weight"] for i in (0, 1))
    x = torch.cat([torch.cat([codes[z], acts[a][None]]) for z, a in zip(tokens, actions, strict=True)])
    R, E = x.shape
    x = x + w["pos_emb.weight"][:R]
    for i in range(2):
        b = {key.removeprefix(f"transformer.blocks.{i}."): t for key, t in w.items()}
        h = F.layer_norm(x, (E,), b["ln1.weight"], b["ln1.bias"])
        q, k, v = (
            F.linear(h, b[f"attn.{n}.weight"], b[f"attn.{n}.bias"]).view(R, 4, -1).transpose(0, 1)
            for n in ("query", "key", "value")
        )
        scores = (q @ k.transpose(1, 2) / (E // 4) ** 0.5).masked_fill(b["attn.mask"][:R, :R] == 0, -torch.inf)
        y = (scores.softmax(-1) @ v).transpose(0, 1).reshape(R, E)
        x = x + F.linear(y, b["attn.proj.weight"], b["attn.proj.bias"])
        h = F.layer_norm(x, (E,), b["ln2.weight"], b["ln2.bias"])
        x = x + F.linear(F.gelu(F.linear(h, b["mlp.0.weight"], b["mlp.0.bias"])), b["mlp.2.weight"], b["mlp.2.bias"])
    return F.layer_norm(x, (E,), w["transformer.ln_f.weight"], w["transformer.ln_f.bias"])


def test_the_world_model_computes_what_the_file_says(run: Path, file: Path) -> None:
    given = {key: t.double() if t.is_floating_point() else t for key, t in read(file).items()}
    tokens = torch.randint(N, (2, K), generator=torch.Generator().manual_seed(1))
    actions = torch.tensor([2, 1])
    x = minigpt(given, tokens, actions)

    def head(name: str, x: Tensor) -> Tensor:
        w = {key.removeprefix(f"world_model.head_{name}.head_module."): t for key, t in given.items()}
        return F.linear(F.relu(F.linear(x, w["0.weight"], w["0.bias"])), w["2.weight"], w["2.bias"])

    m = agent_of(run).world_model
    blocks = m._blocks(tokens[None], actions[None], torch.zeros(N, 12, dtype=torch.float64))
    ours, at_action = m._training_outputs(blocks, 0)
    read_at = [i for i in given["world_model.head_observations.indices"].tolist() if i < len(x) - 1]
    predicted = torch.cat([m.observation_head(ours)[0, 0, 1:], m.observation_head(ours)[0, 1]])
    assert torch.allclose(predicted, head("observations", x[read_at]), atol=1e-9)
    acts = given["world_model.head_rewards.indices"][:2]
    assert torch.allclose(m.reward_head(at_action[0]), head("rewards", x[acts]), atol=1e-9)
    assert torch.allclose(m.end_head(at_action[0]), head("ends", x[acts]), atol=1e-9)


def test_the_tokenizer_computes_what_the_file_says(run: Path, file: Path) -> None:
    given = {key.removeprefix("tokenizer."): t.double() for key, t in read(file).items() if key[:3] == "tok"}

    def conv(x: Tensor, key: str, **how: int) -> Tensor:
        size = given[f"{key}.weight"].shape[-1]
        return F.conv2d(x, given[f"{key}.weight"], given[f"{key}.bias"], **{"padding": size // 2} | how)

    def norm(x: Tensor, key: str) -> Tensor:
        return F.group_norm(x, 32, given[f"{key}.weight"], given[f"{key}.bias"], 1e-6)

    def residual(x: Tensor, key: str) -> Tensor:
        h = conv(F.silu(norm(x, f"{key}.norm1")), f"{key}.conv1")
        h = conv(F.silu(norm(h, f"{key}.norm2")), f"{key}.conv2")
        return h + (conv(x, f"{key}.nin_shortcut") if f"{key}.nin_shortcut.weight" in given else x)

    def attention(x: Tensor, key: str) -> Tensor:
        h = norm(x, f"{key}.norm")
        q, k, v = (conv(h, f"{key}.{n}").flatten(2) for n in "qkv")  # (B, c, H W)
        weights = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(-1)
        return x + conv((v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:]), f"{key}.proj_out")

    def level(x: Tensor, key: str, blocks: int) -> Tensor:
        for i in range(blocks):
            x = residual(x, f"{key}.block.{i}")
            x = attention(x, f"{key}.attn.{i}") if f"{key}.attn.{i}.q.weight" in given else x
        return x

    def middle(x: Tensor, part: str) -> Tensor:
        x = attention(residual(x, f"{part}.mid.block_1"), f"{part}.mid.attn_1")
        return residual(x, f"{part}.mid.block_2")

    frames = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    x = conv(frames, "encoder.conv_in")
    for i in range(4):
        x = level(x, f"encoder.down.{i}", 1)
        if i < 3:
            x = conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", stride=2, padding=0)
    x = conv(conv(F.silu(norm(middle(x, "encoder"), "encoder.norm_out")), "encoder.conv_out"), "pre_quant_conv")
    codes = torch.randn(2, 12, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y = middle(conv(conv(codes, "post_quant_conv"), "decoder.conv_in"), "decoder")
    for i in (3, 2, 1, 0):
        y = level(y, f"decoder.up.{i}", 2)
        y = conv(F.interpolate(y, scale_factor=2, mode="nearest"), f"decoder.up.{i}.upsample.conv") if i else y
    y = conv(F.silu(norm(y, "decoder.norm_out")), "decoder.conv_out")

    v = agent_of(run).tokenizer
    assert torch.allclose(v.latents(frames), x, atol=1e-9)
    assert torch.allclose(v.decode(codes), y, atol=1e-9)


def test_the_controller_computes_what_the_file_says(run: Path, file: Path) -> None:
    w = {key.removeprefix("actor_critic."): t.double() for key, t in read(file).items() if key[:5] == "actor"}
    frames = torch.rand(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 2 - 1
    x = frames
    for i in (1, 2, 3, 4):
        x = F.relu(F.max_pool2d(F.conv2d(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], padding=1), 2))
    cell = [w[f"lstm.{kind}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h, _ = torch.lstm_cell(x.flatten(1), (x.new_zeros(1, 12),) * 2, *cell)
    c = agent_of(run).controller
    _, policy = c.observe(c.initial_state(1), frames)
    assert torch.allclose(policy.logits, F.linear(h, w["actor_linear.weight"], w["actor_linear.bias"]), atol=1e-12)
    value = F.linear(h, w["critic_linear.weight"], w["critic_linear.bias"])[:, 0]
    assert torch.allclose(policy.value, value, atol=1e-12)
