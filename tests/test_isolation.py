"""A variant changes what it declares, and nothing else: keys, parameters and their first values, draws, metric names."""

import functools
import itertools
import json
from pathlib import Path

import pytest
import torch

from remctl import runner
from remctl.config import RunConfig, build, differing, keys, resolve, yaml12
from remctl.config.effects import without_effect
from remctl.config.resolve import parse_set
from remctl.runs.files import read_jsonl
from remctl.train.build import build_agent
from remctl.variants import VARIANTS
from tests.tiny import TINY, TINY_IRIS

# What each variant may add to or change in the state dicts, by name prefix; everything else must be equal in shape.
C_ENCODER = "controller.encoder"
C_INPUT = ("controller.lstm.weight_ih", "controller.action_embedding.weight")
IRIS = ("tokenizer.", "world_model.", C_ENCODER)
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
    "iris": (*IRIS, *C_INPUT),
    "iris_rem": (*IRIS, *C_INPUT),
}
# Of these the layers' first weights come from another distribution (IRIS: deviation 0.02) or other layers bear the names.
OTHER_LAYERS = {"tokenizer_4x4": ("tokenizer.",), "iris": IRIS, "iris_rem": IRIS}
# Sizes that a variant sets are cut down again where a whole run is trained.
SMALL: dict[str, tuple[str, ...]] = {"iris": TINY_IRIS, "iris_rem": TINY_IRIS}


def configured(name: str) -> RunConfig:
    """The variant over a control of 8x8 tokens, small enough for seconds."""
    control = keys(resolve("Catch", "quick", sets=(*TINY, "tokenizer.grid_size=8", "training.num_epochs=2")))
    return build(control | VARIANTS[name].overrides | {"variant": name})


def small(name: str) -> RunConfig:
    """The variant as it is trained here."""
    return build(keys(configured(name)) | dict(map(parse_set, SMALL.get(name, ()))) | {"training.num_epochs": 2})


@functools.cache
def weights(name: str, *sets: str) -> dict[str, torch.Tensor]:
    """By name, as the variant, with `sets`, starts."""
    config = build(
        keys(configured(name)) | {key: yaml12.load(value) for key, _, value in (s.partition("=") for s in sets)}
    )
    agent = build_agent(config, 3, torch.device("cpu"))
    return {f"{part}.{n}": t for part, module in agent.components.items() for n, t in module.state_dict().items()}


def shapes(name: str) -> dict[str, torch.Size]:
    return {n: t.shape for n, t in weights(name).items()}


def layer_of(name: str) -> str:
    return name.rsplit(".", 1)[0]


def unequal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> set[str]:
    """What both have in the same shape, and with other values, in layers of which both have all in the same shape."""
    shared = {n for n in ours.keys() & theirs.keys() if ours[n].shape == theirs[n].shape}
    other_layers = {layer_of(n) for n in (ours.keys() | theirs.keys()) - shared}
    return {n for n in shared if layer_of(n) not in other_layers and not torch.equal(ours[n], theirs[n])}


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


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_variant_has_in_common_with_the_control_starts_with_its_values(name: str) -> None:
    different = unequal(weights("rem"), weights(name))
    assert all(n.startswith(OTHER_LAYERS.get(name, ("nothing",))) for n in different), different


def test_without_pop_everything_but_the_prediction_tokens_starts_as_with_it() -> None:
    pop, none = weights("rem"), weights("no_pop")
    assert pop.keys() - none.keys() == {"world_model.prediction_embedding.weight"}
    for name, values in none.items():
        assert torch.equal(values, pop[name]), name


@pytest.mark.parametrize("layer_init", ["copies", "independent"])
@pytest.mark.parametrize(
    "setting",
    [
        "world_model.num_layers=3",
        "world_model.ffn_dim=24",
        "world_model.num_heads=1",
        "world_model.spare_prediction_token=true",
        "tokenizer.num_codes=24",
        "tokenizer.channels=[16]",
        "controller.hidden_dim=24",
        "controller.conv_channels=[4,4]",
        "environment.frame_size=64",
    ],
)
def test_what_another_size_leaves_as_it_is_starts_with_the_same_values(setting: str, layer_init: str) -> None:
    sets = (f"world_model.layer_init={layer_init}", "world_model.num_layers=2")
    ours, theirs = weights("rem", *sets), weights("rem", *sets, setting)
    different = unequal(ours, theirs)
    if setting.startswith(("controller.conv", "environment")):  # layers of other places bear the names
        different = {n for n in different if not n.startswith((C_ENCODER, "tokenizer."))}
    assert different == set()


def test_every_parameter_has_values_of_its_own_and_of_its_seed() -> None:
    ours, other = (weights("rem", "world_model.layer_init=independent", f"seed={seed}") for seed in (0, 1))
    drawn = {n: values for n, values in ours.items() if values.unique().numel() > 1}
    drawn.pop("world_model.retnet.decoder.layers.0.retention.thetas")  # a table
    assert len(drawn) > 30
    for name, values in drawn.items():
        assert not torch.equal(values, other[name]), name
    alike = [(a, b) for a, b in itertools.combinations(drawn.values(), 2) if a.numel() == b.numel()]
    assert len(alike) > 30
    assert not any(torch.equal(a.flatten(), b.flatten()) for a, b in alike)


def test_the_weights_of_one_layer_do_not_depend_on_those_of_another_shape_beside_them() -> None:
    """C's LSTM with another input: what it does with its own state starts as before."""
    ours, theirs = weights("rem"), weights("frames_only")
    assert ours["controller.lstm.weight_ih"].shape != theirs["controller.lstm.weight_ih"].shape
    for name in ("weight_hh", "bias_ih", "bias_hh"):
        assert torch.equal(ours[f"controller.lstm.{name}"], theirs[f"controller.lstm.{name}"])


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
