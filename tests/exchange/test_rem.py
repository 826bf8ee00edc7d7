"""REM's published format: the listing, the mapping, and what the networks then compute, written out from the file alone."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from remctl.config import from_yaml
from remctl.exchange import lpips
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.build import Agent, build_agent
from remctl.weights import CacheStatus, lpips_shapes
from tests.exchange.published import Tensors, rem_file, saved

LISTING = Path(__file__).parents[1] / "data" / "published_rem_keys.csv"
PAPER = {
    "channels": (32, 64, 128, 256),
    "E": 256,
    "N": 512,
    "K": 64,
    "layers": 5,
    "heads": 4,
    "ffn": 1024,
    "convs": (128, 64),
    "hidden": 512,
    "A": 6,
    "grid": 8,
}
K, N, A = 16, 10, 3


def agent_of(path: Path) -> Agent:
    """The agent of a run folder in float64, in evaluation mode."""
    run = RunFolder(path)
    agent = build_agent(from_yaml(run.config), A, torch.device("cpu"))
    agent.load_state_dict(checkpoint.load_agent(run).agent)
    for module in agent.components.values():
        module.double().eval()
    return agent


def read(path: Path) -> Tensors:
    return torch.load(path, weights_only=True)


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return saved(tmp_path / "agent.pt", rem_file())


@pytest.fixture
def run(file: Path, take_in: Callable, tmp_path: Path) -> Path:
    assert take_in(file).status == 0
    return tmp_path / "published/rem/Catch/seed_0"


def test_files_of_these_tests_are_as_the_listing_has_them() -> None:
    made = [(k, "x".join(map(str, t.shape)), "float32") for k, t in rem_file(**PAPER, lpips=True).items()]
    with LISTING.open() as listing:
        listed = [(row["key"], row["shape"], row["dtype"]) for row in csv.DictReader(listing)]
    assert len(listed) == 149
    assert made[:149] == listed


def test_a_file_of_the_paper_in_and_out_is_the_same_file(
    cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rem_file(**PAPER, lpips=True)
    saved(tmp_path / "Pong.pt", given)
    done = cli("import", tmp_path / "Pong.pt", "--from", "rem", "--game", "Pong", "--out", tmp_path / "run")
    assert (done.status, done.err) == (0, "")
    stored = checkpoint.load_agent(RunFolder(tmp_path / "run")).agent
    sizes = {part: sum(t.numel() for k, t in some.items() if "thetas" not in k) for part, some in stored.items()}
    assert sizes == {"tokenizer": 3_189_667, "world_model": 4_625_925, "controller": 4_574_407}
    perceptual = {key: t for key, t in given.items() if key.startswith("tokenizer.lpips.")}
    monkeypatch.setattr("remctl.exchange.lpips.cached", lambda: perceptual)
    assert cli("export", tmp_path / "run", "--format", "rem", "--out", tmp_path / "out.pt").status == 0
    written = read(tmp_path / "out.pt")
    assert same(written, given)
    assert list(written)[:149] == list(given)[:149]


def test_a_small_one_too_and_as_safetensors(
    cli: Callable, run: Path, file: Path, tmp_path: Path, take_in: Callable
) -> None:
    out, again = tmp_path / "out.safetensors", tmp_path / "again.pt"
    assert cli("export", run, "--format", "rem", "--out", out, "--without-lpips").status == 0
    assert take_in(out, "rem", "--out", tmp_path / "second").status == 0
    assert cli("export", tmp_path / "second", "--format", "rem", "--out", again, "--without-lpips").status == 0
    assert same(read(again), read(file))


@pytest.mark.parametrize("setting", ["true", "false"])
def test_a_spare_prediction_token_is_kept_whether_m_has_it_or_not(
    cli: Callable, file: Path, tmp_path: Path, take_in: Callable, setting: str
) -> None:
    key = "world_model.spare_prediction_token"
    assert take_in(file, "rem", "--out", tmp_path / "run", "--set", f"{key}={setting}").status == 0
    assert cli("export", tmp_path / "run", "--format", "rem", "--out", tmp_path / "x.pt", "--without-lpips").status == 0
    assert same(read(tmp_path / "x.pt"), read(file))


def test_tables_without_spare_rows_are_taken(cli: Callable, tmp_path: Path, take_in: Callable) -> None:
    given = rem_file(spare=0)
    assert take_in(saved(tmp_path / "bare.pt", given), "rem", "--out", tmp_path / "run").status == 0
    assert cli("export", tmp_path / "run", "--format", "rem", "--out", tmp_path / "x.pt", "--without-lpips").status == 0
    assert same(read(tmp_path / "x.pt"), given)


def test_lpips_weights_of_the_cache_are_written_where_the_listing_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    cached = {name: random.random(shape, np.float32) for name, shape in lpips_shapes().items()}
    monkeypatch.setattr("remctl.exchange.lpips.lpips_status", lambda: CacheStatus("ready", "", ""))
    monkeypatch.setattr("remctl.exchange.lpips.read_lpips", lambda path: cached)
    written = lpips.cached()
    with LISTING.open() as listing:
        listed = {row["key"]: row["shape"] for row in csv.DictReader(listing) if ".lpips." in row["key"]}
    assert {key: "x".join(map(str, t.shape)) for key, t in written.items()} == listed
    for key, tensor in written.items():
        if found := re.search(r"slice\d\.(\d+\.\w+)$", key):
            assert np.array_equal(tensor.numpy(), cached[f"features.{found[1]}"])
        elif found := re.search(r"lin(\d)\.", key):
            assert np.array_equal(tensor.numpy(), cached[f"heads.{found[1]}.weight"])
    assert written["tokenizer.lpips.scaling_layer.scale"].flatten().tolist() == pytest.approx([0.458, 0.448, 0.450])


# --- what is computed


def retnet(x: Tensor, file: Tensors, layers: int, heads: int) -> Tensor:
    """METHOD: pre-norm layers of retention and feed-forward network, tokens (R, E) from position 0, in the parallel form."""
    rates = 1 - torch.linspace(math.log(1 / 32), math.log(1 / 512), heads, dtype=torch.float64).exp()
    R, E = x.shape
    D, at = E // heads, torch.arange(R, dtype=torch.float64)
    decay = (rates[:, None, None] ** (at[:, None] - at).clamp(min=0)).tril()
    for i in range(layers):
        w = {k.removeprefix(f"world_model._model.layers.{i}."): t for k, t in file.items()}
        h = F.layer_norm(x, (E,), w["norm1.weight"], w["norm1.bias"], 1e-6)
        q, k, v, g = (F.linear(h, w[f"retention.{n}_proj.weight"], w[f"retention.{n}_proj.bias"]) for n in "qkvg")
        q, k, v = (t.view(R, heads, D).transpose(0, 1) for t in (q, k, v))
        angles = at[:, None] * w["retention.thetas"]
        q, k = turned(q, angles), turned(k, angles) / D**0.5
        y = (q @ k.transpose(1, 2) * decay) @ v
        y = F.layer_norm(y, (D,), eps=1e-6).transpose(0, 1).reshape(R, E)
        x = x + F.linear(F.silu(g) * y, w["retention.out_proj.weight"], w["retention.out_proj.bias"])
        h = F.layer_norm(x, (E,), w["norm2.weight"], w["norm2.bias"], 1e-6)
        hidden = F.silu(F.linear(h, w["linear1.weight"], w["linear1.bias"]))
        x = x + F.linear(hidden, w["linear2.weight"], w["linear2.bias"])
    return x


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Neighbouring pairs of x (H, R, D) by angles (R, D)."""
    ahead = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * angles.cos() + ahead * angles.sin()


def head(x: Tensor, file: Tensors, name: str) -> Tensor:
    w = {k.removeprefix(f"world_model.head_{name}."): t for k, t in file.items()}
    return F.linear(F.relu(F.linear(x, w["0.weight"], w["0.bias"])), w["2.weight"], w["2.bias"])


def test_the_world_model_computes_what_the_file_says(run: Path, file: Path) -> None:
    given = {key: t.double() for key, t in read(file).items()}
    given |= {k: t.repeat_interleave(2) for k, t in _exact_thetas(given).items()}
    agent, random = agent_of(run), torch.Generator().manual_seed(1)
    tokens = torch.randint(N, (1, 2, K), generator=random)
    actions = torch.tensor([[2, 1]])
    codes, table = given["tokenizer.embedding.weight"], given["world_model.embedding.weight"]
    blocks = [torch.cat([codes[z], table[N + a][None]]) for z, a in zip(tokens[0], actions[0], strict=True)]
    u = given["world_model.queries.weight"][:K]
    at_actions = retnet(torch.cat(blocks), given, 2, 2)[K :: K + 1]
    predicted = retnet(torch.cat([*blocks, u]), given, 2, 2)[-K:]

    m = agent.world_model
    embedded = m._blocks(tokens, actions, agent.tokenizer.code_vectors)
    out = m.sequence_model(
        embedded, m.sequence_model.initial_state(1, embedded), prediction=m._prediction_tokens(1, 1), first_predicted=2
    )
    assert torch.allclose(m.observation_head(out.predicted[0, 0]), head(predicted, given, "observations"), atol=1e-9)
    assert torch.allclose(m.reward_head(out.real[0, :, -1]), head(at_actions, given, "rewards"), atol=1e-9)
    assert torch.allclose(m.end_head(out.real[0, :, -1]), head(at_actions, given, "ends"), atol=1e-9)


def _exact_thetas(given: Tensors) -> Tensors:
    """float32's rounding of angles is not what is tested."""
    keys = [key for key in given if key.endswith("thetas")]
    return {key: 10_000 ** -torch.linspace(0, 1, len(given[key]) // 2, dtype=torch.float64) for key in keys}


def test_the_tokenizer_computes_what_the_file_says(run: Path, file: Path) -> None:
    given = {key.removeprefix("tokenizer."): t.double() for key, t in read(file).items()}

    def conv(x: Tensor, key: str, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, given[f"{key}.weight"], given[f"{key}.bias"], stride, padding)

    def norm(x: Tensor, key: str) -> Tensor:
        return F.silu(F.group_norm(x, 8, given[f"{key}.weight"], given[f"{key}.bias"], 1e-6))

    frames = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    x = conv(frames, "encoder.in_conv")
    for i in range(3):
        x = F.pad(norm(x, f"encoder.blocks.{i}.0"), (0, 1, 0, 1))
        x = conv(conv(x, f"encoder.blocks.{i}.2.conv", 2, 0), f"encoder.blocks.{i}.3")
    x = conv(conv(norm(x, "encoder.out_conv.0"), "encoder.out_conv.2"), "pre_quant_conv", 1, 0)
    flat = x.permute(0, 2, 3, 1).flatten(1, 2)
    tokens = torch.cdist(flat, given["embedding.weight"][None].expand(2, -1, -1)).argmin(-1)
    y = given["embedding.weight"][tokens].transpose(1, 2).unflatten(2, (4, 4))
    y = conv(conv(y, "post_quant_conv", 1, 0), "decoder.in_conv")
    for i in range(3):
        y = F.interpolate(norm(y, f"decoder.blocks.{i}.0"), scale_factor=2, mode="nearest")
        y = conv(conv(y, f"decoder.blocks.{i}.2.conv"), f"decoder.blocks.{i}.3")
    y = conv(norm(y, "decoder.out_block.0"), "decoder.out_block.2")

    v = agent_of(run).tokenizer
    assert torch.equal(v.encode(frames), tokens)
    assert torch.allclose(v.decode(v.embed(tokens)), y, atol=1e-9)


def test_the_controller_computes_what_the_file_says(run: Path, file: Path) -> None:
    w = {key.removeprefix("actor_critic."): t.double() for key, t in read(file).items()}
    cell = [w[f"memory.{kind}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    codes = torch.randn(1, 16, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = codes
    for i in (0, 2):
        x = F.silu(F.conv2d(x, w[f"cnn.{i}.weight"], w[f"cnn.{i}.bias"], padding=1))
    x = F.silu(F.linear(x.flatten(1), w["into.weight"], w["into.bias"]))
    state = torch.lstm_cell(x, (x.new_zeros(1, 12),) * 2, *cell)
    state = torch.lstm_cell(w["told.weight"][[2]], state, *cell)

    c = agent_of(run).controller
    ours, _ = c.observe(c.initial_state(1), codes)
    policy = c.decide(c.record_action(ours, torch.tensor([2])))
    assert torch.allclose(policy.logits, F.linear(state[0], w["policy.weight"], w["policy.bias"]), atol=1e-12)
    assert torch.allclose(policy.value, F.linear(state[0], w["value.weight"], w["value.bias"])[:, 0], atol=1e-12)
