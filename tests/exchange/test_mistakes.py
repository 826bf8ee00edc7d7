"""What is given that is no such file, or another one: one line with what to do, and nothing is left behind."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from remctl.runs.layout import RunFolder
from remctl.weights import CacheStatus
from tests.exchange.conftest import refused
from tests.exchange.published import iris_file, rem_file, saved
from tests.exchange.test_rem import read, same


class Boom:
    """A pickle of it makes a folder where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("boom",))


def left(tmp_path: Path) -> bool:
    """Whether a run, or a part of one, is there."""
    return any(p.name.startswith(".tmp-") or p.name == "config.yaml" for p in tmp_path.rglob("*"))


# --- how tensors may be wrapped


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"agent": t, "epoch": 600, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
        lambda t: {f"module._orig_mod.{k}": v for k, v in t.items()},
        lambda t: {"state_dict": {"agent": {f"module.{k}": v for k, v in t.items()}}},
        lambda t: {k.replace("world_model.", "world_model._orig_mod.", 1): v for k, v in t.items()},
        lambda t: {part: {k.partition(".")[2]: v for k, v in t.items() if k.startswith(f"{part}.")}
                   for part in ("tokenizer", "world_model", "actor_critic")},
        lambda t: {k: v.half() for k, v in t.items()},
        lambda t: dict(reversed(t.items())),
    ],
)  # fmt: skip
def test_wrapped_state_dicts_are_taken(cli: Callable, tmp_path: Path, take_in: Callable, wrap: Callable) -> None:
    given = {k: v.half().float() for k, v in rem_file().items()}
    given |= {k: v for k, v in rem_file().items() if k.endswith("thetas")}
    done = take_in(saved(tmp_path / "x.pt", wrap(given)), "rem", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert cli("export", tmp_path / "run", "--format", "rem", "--out", tmp_path / "y.pt", "--without-lpips").status == 0
    written = read(tmp_path / "y.pt")
    if read(tmp_path / "x.pt").get("actor_critic.value.bias", torch.ones(1)).dtype == torch.float16:
        assert "read as float32: weights in float16" in done.err
        given |= {k: v.half().float() for k, v in given.items()}
    assert same(written, given)


def test_what_is_left_out_is_said(tmp_path: Path, take_in: Callable) -> None:
    done = take_in(saved(tmp_path / "x.pt", {"agent": rem_file(), "epoch": 3, "optimizer": {"lr": 0.1}}))
    assert "left out, as no part of the agent: epoch, optimizer" in done.err
    done = take_in(saved(tmp_path / "y.pt", rem_file() | {"tokenizer.version": 3}), "rem", "--out", tmp_path / "other")
    assert "left out, as no part of the agent: tokenizer.version" in done.err


# --- files that are none


def test_files_that_are_no_state_dict(tmp_path: Path, take_in: Callable) -> None:
    whole = saved(tmp_path / "whole.pt", rem_file()).read_bytes()
    safe = safetensors.torch.save(rem_file())
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    bad: dict[str, tuple[bytes | None, str]] = {
        "none.pt": (None, "no such file"),
        "folder.pt": (None, "not a regular file"),
        "pipe.pt": (None, "not a regular file"),
        "empty.pt": (b"", "cut off, damaged"),
        "text.pt": (b"<html>404</html>", "refused, nothing of it ran"),
        "half.pt": (whole[: len(whole) // 2], "cut off, damaged"),
        "tail.pt": (whole[len(whole) // 2 :], ""),
        "half.safetensors": (safe[: len(safe) // 2], "truncated, damaged"),
        "code.pt": (pickle.dumps(Boom()), "holds more than tensors"),
        "numpy.pt": (pickle.dumps({"a": np.float64(1)}), "holds more than tensors"),
    }
    for name, (data, words) in bad.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        refused(take_in(tmp_path / name), name, words)
    for name, value in {
        "list.pt": [1],
        "tensor.pt": torch.ones(2),
        "nothing.pt": {},
        "v.pt": {"tokenizer.a": torch.ones(1)},
    }.items():
        refused(take_in(saved(tmp_path / name, value)), name, "to have one, with keys that begin with tokenizer.")
    for name, value, words in (
        ("sparse.pt", {"world_model.embedding.weight": torch.eye(3).to_sparse()}, "is sparse or without values"),
        ("meta.pt", {"world_model.embedding.weight": torch.empty(3, device="meta")}, "is sparse or without values"),
        ("thetas.pt", {k: torch.zeros(999) for k in rem_file() if k.endswith("thetas")}, "thetas"),
    ):
        done = take_in(saved(tmp_path / name, rem_file() | value))
        refused(done, name, words)
        assert "num_heads=0" not in done.err
    torch.save({"agent": rem_file(), "hook": Boom()}, tmp_path / "hidden.pt")
    refused(take_in(tmp_path / "hidden.pt"), "holds more than tensors")
    refused(take_in(saved(tmp_path / "two.pt", {"a": rem_file(), "b": rem_file()})), "has 2 agents (a., b.)")
    assert not (tmp_path / "boom").exists()
    assert not left(tmp_path)


def test_another_format_is_named(tmp_path: Path, take_in: Callable, cli: Callable) -> None:
    refused(take_in(saved(tmp_path / "i.pt", iris_file())), "it is one of iris: --from iris")
    refused(take_in(saved(tmp_path / "r.pt", rem_file()), "iris"), "it is one of rem: --from rem")
    odd = {"tokenizer.x": torch.ones(1), "world_model.y": torch.ones(1)}
    refused(
        take_in(saved(tmp_path / "o.pt", odd)), "no state dict of rem (no key begins with world_model._model.layers.)"
    )
    done = cli("import", tmp_path / "r.pt", "--from", "rme", "--game", "Catch", "--out", tmp_path / "run")
    refused(done, "unknown format 'rme': did you mean rem?")
    refused(cli("import", tmp_path / "r.pt", "--from", "rem", "--out", tmp_path / "run"), "add --game Pong")
    assert not left(tmp_path)


# --- tensors that do not fit


def test_missing_unknown_and_misshapen_tensors_are_counted(tmp_path: Path, take_in: Callable) -> None:
    given = rem_file()
    for key in [key for key in given if ".decoder.blocks." in key]:
        del given[key]
    given["world_model.extra.bias"] = torch.ones(3)
    given["tokenizer.pre_quant_conv.bias"] = torch.ones(7)
    given["world_model.head_ends.2.bias"] = torch.ones(2, dtype=torch.int64)
    done = take_in(saved(tmp_path / "x.pt", given))
    refused(done, "18 missing: tokenizer.decoder.blocks.0.0.weight,", ", ..;", "1 unknown: world_model.extra.bias")
    refused(
        done,
        "2 of another shape: tokenizer.pre_quant_conv.bias is 7, not 16, world_model.head_ends.2.bias is 2 int64, not 2",
    )
    assert done.err.count("\n") == 1
    assert not left(tmp_path)


@pytest.mark.parametrize("change", [
    lambda t: t.pop("actor_critic.value.bias"),
    lambda t: t.pop("actor_critic.memory.bias_hh"),
    lambda t: t.pop("world_model.queries.weight"),
    lambda t: t.pop("world_model.embedding.weight"),
    lambda t: t.update({"world_model.embedding.weight": torch.ones(10 + 2, 16)}),
    lambda t: t.update({"world_model.embedding.weight": torch.ones(10 + 5, 16)}),
    lambda t: t.update({"world_model.queries.weight": torch.ones(15, 16)}),
    lambda t: t.update({"world_model.queries.weight": torch.ones(18, 16)}),
    lambda t: t.update({"world_model.second.weight": torch.ones(17, 16)}),
    lambda t: t.update({"tokenizer.lpips.lin0.model.1.weight": torch.ones(1, 64, 1, 1)}),
    lambda t: t.update({"actor_critic.more.weight": torch.ones(4, 12)}),
])  # fmt: skip
def test_one_tensor_too_few_too_many_or_too_long(tmp_path: Path, take_in: Callable, change: Callable) -> None:
    given = rem_file()
    change(given)
    refused(take_in(saved(tmp_path / "x.pt", given)), "x.pt does not fit; of its")
    assert not left(tmp_path)


def test_weights_that_are_not_finite_and_other_angles(tmp_path: Path, take_in: Callable) -> None:
    given = rem_file()
    given["world_model.embedding.weight"][3, 3] = torch.nan
    refused(take_in(saved(tmp_path / "nan.pt", given)), "world_model.embedding.weight has values that are not finite")
    given = rem_file()
    thetas = given["world_model._model.layers.1.retention.thetas"]
    thetas.copy_(torch.cat([thetas[::2], thetas[::2]]))  # pairs in halves
    refused(take_in(saved(tmp_path / "halves.pt", given)), "layers.1.retention.thetas turns positions by other angles")


# --- another size


@pytest.mark.parametrize(
    ("sizes", "lines"),
    [
        ({"layers": 3}, ["world_model.num_layers is 3 in x.pt, 2 here: --set world_model.num_layers=3"]),
        ({"heads": 1}, ["world_model.num_heads is 1"]),
        ({"E": 32}, ["tokenizer.embed_dim is 32", "world_model.embed_dim is 32", "--set world_model.num_heads=4"][:2]),
        ({"N": 11, "ffn": 20}, ["tokenizer.num_codes is 11", "world_model.ffn_dim is 20"]),
        ({"convs": (7,), "hidden": 9}, ["--set 'controller.conv_channels=[7]'", "controller.hidden_dim is 9"]),
        ({"channels": (8, 16, 24), "grid": 8, "K": 64}, ["tokenizer.grid_size is 8"]),
        ({"channels": (8, 16, 32, 32)}, ["--set 'tokenizer.channels=[8, 16, 32, 32]'"]),
    ],
)
def test_what_is_added_as_it_says_fits(
    cli: Callable, tmp_path: Path, take_in: Callable, sizes: dict[str, Any], lines: list[str]
) -> None:
    import shlex

    heads = {"heads": 2} | sizes
    file = saved(tmp_path / "x.pt", rem_file(**heads))
    done = take_in(file)
    refused(done, *lines)
    assert not left(tmp_path)
    more = shlex.split(done.err.strip().splitlines()[-1].partition(": add ")[2])
    again = take_in(file, "rem", *more)
    assert again.status == 0, again.err


def test_iris_of_another_size_too(tmp_path: Path, take_in: Callable) -> None:
    import shlex

    given = iris_file((32, 64, 64), (1,), 2, 9, 8, 64, 1, 30, 2 * 65, 64, 11, 256, 3)
    file = saved(tmp_path / "x.pt", given)
    done = take_in(file, "iris")
    keys = "num_codes embed_dim grid_size channels attention_resolutions num_res_blocks num_layers sequence_blocks hidden_dim"
    refused(done, *(f"{key} is " for key in keys.split()))
    more = shlex.split(done.err.strip().splitlines()[-1].partition(": add ")[2])
    again = take_in(file, "iris", *more, "--set", "imagination.horizon=2", "--set", "world_model.context_blocks=1")
    assert again.status == 0, again.err


def test_another_number_of_actions_names_games_that_fit(tmp_path: Path, cli: Callable, take_in: Callable) -> None:
    six = saved(tmp_path / "six.pt", rem_file(A=6))
    done = take_in(six)
    refused(done, "six.pt has 6 actions, Catch 3; games that have: DemonAttack, Pong, Qbert, UpNDown")
    refused(
        take_in(saved(tmp_path / "five.pt", rem_file(A=5))), "five.pt has 5 actions, Catch 3; no game of Atari 100K has"
    )
    assert not left(tmp_path)


# --- where things go


def test_nothing_is_overwritten(cli: Callable, tmp_path: Path, take_in: Callable) -> None:
    file = saved(tmp_path / "x.pt", rem_file())
    assert take_in(file, "rem", "--out", tmp_path / "run").status == 0
    before = (tmp_path / "run/imported.json").read_bytes()
    refused(take_in(file, "rem", "--out", tmp_path / "run"), "has something in it already")
    refused(take_in(file, "rem", "--out", file / "run"), "is no folder")
    assert (tmp_path / "run/imported.json").read_bytes() == before
    refused(cli("export", tmp_path / "run", "--format", "rem", "--out", file), "is there already")
    refused(cli("export", tmp_path / "run", "--format", "rem", "--out", tmp_path / "run"), "is there already")


def test_a_full_disk_leaves_nothing(tmp_path: Path, take_in: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("remctl.runs.imported.write_json", full)
    refused(take_in(saved(tmp_path / "x.pt", rem_file()), "rem", "--out", tmp_path / "run"), "disk full")
    assert not left(tmp_path)


def test_lpips_weights_are_asked_for(
    cli: Callable, tmp_path: Path, take_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert take_in(saved(tmp_path / "x.pt", rem_file()), "rem", "--out", tmp_path / "run").status == 0
    monkeypatch.setattr(
        "remctl.exchange.lpips.lpips_status", lambda: CacheStatus("missing", "LPIPS weights: missing (x)")
    )
    line = ("export", tmp_path / "run", "--format", "rem", "--out", tmp_path / "y.pt")
    refused(cli(*line), "run `remctl weights fetch`, or --without-lpips leaves them out")
    assert not (tmp_path / "y.pt").exists()
    done = cli(*line, "--without-lpips")
    assert "without LPIPS' weights" in done.err


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("rem", "world_model.ffn_activation=gelu"),
        ("rem", "world_model.decay=power_of_two"),
        ("rem", "world_model.observation_embeddings=separate"),
        ("rem", "world_model.observation_prediction=token_by_token"),
        ("rem", "world_model.prediction_tokens=shared"),
        ("rem", "controller.observes=frames"),
        ("rem", "controller.action_inputs=false"),
        ("rem", "world_model.layer_norm_eps=0.001"),
        ("iris", "world_model.ffn_activation=swish"),
        ("iris", "world_model.num_heads=2"),
        ("iris", "controller.action_inputs=true"),
    ],
)
def test_what_a_format_cannot_hold_is_named(
    cli: Callable, tmp_path: Path, take_in: Callable, kind: str, key: str
) -> None:
    from remctl.config import build, from_yaml, to_yaml

    file = saved(tmp_path / "x.pt", {"rem": rem_file, "iris": iris_file}[kind]())
    name, _, value = key.partition("=")
    refused(
        take_in(file, kind, "--out", tmp_path / "run", "--set", key), f"format {kind} cannot hold", f"{name} is {value}"
    )
    assert take_in(file, kind, "--out", tmp_path / "run").status == 0
    run = RunFolder(tmp_path / "run")
    given = {"true": True, "false": False}.get(
        value, float(value) if value[:1] == "0" else int(value) if value.isdigit() else value
    )
    run.config.write_text(to_yaml(build({name: given}, over=from_yaml(run.config))))
    line = ("export", run.path, "--format", kind, "--out", tmp_path / "y.pt", "--without-lpips")
    refused(cli(*line), f"format {kind} cannot hold", f"{name} is {value}")
    other = {"rem": "iris", "iris": "rem"}[kind]
    refused(cli("export", run.path, "--format", other, "--out", tmp_path / "y.pt"), "tokenizer.architecture is")
    assert not (tmp_path / "y.pt").exists()


@pytest.mark.parametrize("kind", ["rem", "iris"])
def test_whatever_shape_a_tensor_has_it_is_named(tmp_path: Path, take_in: Callable, kind: str) -> None:
    given = {"rem": rem_file, "iris": iris_file}[kind]()
    odd = (
        torch.tensor(1.0),
        torch.ones(0),
        torch.ones(2, 2, 2, 2, 2),
        torch.ones(3, dtype=torch.bool),
        torch.ones(0, 3),
    )
    for i, key in enumerate(list(given)[::5]):
        done = take_in(saved(tmp_path / "x.pt", given | {key: odd[i % len(odd)]}), kind)
        assert done.status == 2, (key, done)
        assert "internal error" not in done.err, (key, done)
    assert not left(tmp_path)


def test_names_of_another_file(cli: Callable, tmp_path: Path, take_in: Callable) -> None:
    given = rem_file()
    assert take_in(saved(tmp_path / "x.pt", given), "rem", "--out", tmp_path / "run").status == 0
    other = {key.replace("actor_critic.", "actor.").replace("queries", "u"): t for key, t in rem_file(seed=1).items()}
    line = ("export", tmp_path / "run", "--format", "rem", "--without-lpips", "--out", tmp_path / "y.pt")
    assert cli(*line, "--like", saved(tmp_path / "other.pt", other)).status == 0
    written = read(tmp_path / "y.pt")
    assert written.keys() == other.keys()
    assert torch.equal(written["actor.policy.bias"], given["actor_critic.policy.bias"])
    (tmp_path / "y.pt").unlink()
    refused(cli(*line, "--like", saved(tmp_path / "more.pt", rem_file(layers=3))), "more.pt does not fit")
    (tmp_path / "run/imported.json").unlink()  # as a run that was trained here
    done = cli(*line)
    assert "names that no table of rem lists are ours" in done.err
    assert torch.equal(read(tmp_path / "y.pt")["actor_critic.actor.bias"], given["actor_critic.policy.bias"])
