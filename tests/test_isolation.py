"""A variant changes what it declares, and nothing else: keys, parameters, metric names; and the whole of a run works."""

import functools
import json
from pathlib import Path

import pytest
import torch

from remctl import runner
from remctl.config import RunConfig, build, differing, keys, resolve
from remctl.config.effects import without_effect
from remctl.config.resolve import parse_set
from remctl.runs.files import read_jsonl
from remctl.train.build import build_agent
from remctl.variants import VARIANTS
from tests.tiny import TINY, TINY_IRIS

# What each variant may add to or change in the state dicts, by name prefix; everything else must be equal in shape.
C_ENCODER = "controller.encoder"
C_INPUT = ("controller.lstm.weight_ih", "controller.action_embedding.weight")
DECLARED: dict[str, tuple[str, ...]] = {
    "rem": (),
    "no_pop": ("world_model.prediction_embedding.weight",),
    "shared_prediction_token": ("world_model.prediction_embedding.weight",),
    "sequential_states": (),
    "separate_embeddings": ("world_model.observation_embedding.weight",),
    "tokenizer_4x4": ("tokenizer.", "world_model.prediction_embedding.weight", f"{C_ENCODER}.3.weight"),
    "no_action_inputs": ("controller.action_embedding.weight",),
    "no_latent_space": (C_ENCODER, *C_INPUT),
    "frames_only": (C_ENCODER, *C_INPUT),
    "iris": ("tokenizer.", "world_model.", C_ENCODER, *C_INPUT),
    "iris_rem": ("tokenizer.", "world_model.", C_ENCODER, *C_INPUT),
}
# Sizes that a variant sets are cut down again where a whole run is trained.
SMALL: dict[str, tuple[str, ...]] = {"iris": TINY_IRIS, "iris_rem": TINY_IRIS}


def configured(name: str) -> RunConfig:
    """The variant over a control of 8x8 tokens, small enough for seconds."""
    control = keys(resolve("Catch", "quick", sets=(*TINY, "tokenizer.grid_size=8", "training.num_epochs=2")))
    return build(control | VARIANTS[name].overrides | {"variant": name})


def small(name: str) -> RunConfig:
    """The variant as it is trained here."""
    return build(keys(configured(name)) | dict(map(parse_set, SMALL.get(name, ()))) | {"training.num_epochs": 2})


def shapes(name: str) -> dict[str, torch.Size]:
    agent = build_agent(configured(name), 3, torch.device("cpu"))
    return {f"{part}.{n}": t.shape for part, module in agent.components.items() for n, t in module.state_dict().items()}


def test_every_variant_is_covered() -> None:
    assert set(DECLARED) == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_configuration_differs_in_exactly_the_declared_keys(name: str) -> None:
    changes = differing(configured("rem"), configured(name))
    control, idle = keys(configured("rem")), without_effect(configured(name))  # LPIPS' dropout, where there is no LPIPS
    declared = {k: v for k, v in VARIANTS[name].overrides.items() if v != control[k] and k not in idle}
    assert {key: new for key, (_, new) in changes.items()} == declared
    assert name == "rem" or changes


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_differ_only_where_declared(name: str) -> None:
    control, variant = shapes("rem"), shapes(name)
    different = {n for n in control | variant if control.get(n) != variant.get(n)}
    assert all(n.startswith(DECLARED[name]) for n in different), different
    for declared in DECLARED[name]:
        assert any(n.startswith(declared) for n in different), f"{declared} is declared but the same"


@functools.cache
def trained(name: str, folder: Path) -> dict[str, object]:
    """Train, evaluate and inspect a variant; what came out."""
    config = small(name)
    run = runner.train(config, out=folder, experiment="isolation", device="cpu", command=[], quiet=True)
    return {
        "metrics": [set(entry) for entry in read_jsonl(run.metrics)],
        "result": json.loads(run.result.read_text()),
        "media": {p.name for p in run.media.iterdir()},
        "diagnosis": runner.inspect(run.path, "cpu")["diagnosis"],
        "evaluation": runner.evaluate(run.path, 3, "cpu"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_whole_run_works_with_the_same_metrics_and_media(name: str, folder: Path) -> None:
    control, variant = trained("rem", folder), trained(name, folder)
    assert variant["metrics"] == control["metrics"]
    assert variant["media"] == control["media"] >= {"dream.webp", "reconstructions.png"}
    assert variant["diagnosis"].keys() == control["diagnosis"].keys()
    result = variant["result"]
    assert result["variant"] == name
    assert len(result["returns"]) == 5
    assert result["score"] == pytest.approx(sum(result["returns"]) / 5)
    assert result.keys() == control["result"].keys()
    assert (result["config_hash"] == control["result"]["config_hash"]) is (name == "rem")
    assert len(variant["evaluation"]["returns"]) == 3
