"""What `remctl config` and `remctl list` compute."""

from __future__ import annotations

import re
from typing import Any

import pytest

from remctl.config import keys, resolve
from remctl.config.presets import preset_overrides
from remctl.config.resolve import NOT_OVERRIDES, flatten, sections
from remctl.errors import UserError
from remctl.explain import (
    PRESET_COLUMNS,
    KeyExplanation,
    SectionExplanation,
    allowed,
    differences,
    explain,
    explain_key,
    file_schema,
    plain,
)
from remctl.variants import VARIANTS


@pytest.mark.parametrize("key", keys())
def test_every_key_is_explained(key: str) -> None:
    of = explain(key)
    assert isinstance(of, KeyExplanation)
    assert of.meaning
    assert of.source or key in ("preset", "variant", "seed")
    assert of.allowed
    assert of.default == keys()[key]
    assert set(of.presets) == (set() if key in NOT_OVERRIDES else set(PRESET_COLUMNS))


def test_one_explanation_in_full() -> None:
    assert explain_key("controller.observes") == KeyExplanation(
        key="controller.observes",
        meaning="V's code vectors, or decoded frames through IRIS' CNN (ablation No latent-space C)",
        allowed="codes | frames",
        unit="",
        source="Section 3.2",
        default="codes",
        presets=dict.fromkeys(PRESET_COLUMNS, "codes") | {"iris": "frames", "iris-rem": "frames"},
        variants=dict.fromkeys(("no_latent_space", "frames_only", "iris", "iris_rem"), "frames"),
    )


@pytest.mark.parametrize("title", PRESET_COLUMNS)
def test_preset_values_are_the_presets(title: str) -> None:
    preset, game = PRESET_COLUMNS[title]
    for key, value in preset_overrides(preset, game).items():
        listed = list(value) if isinstance(value, tuple) else value
        assert explain_key(key).presets[title] == listed


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("world_model.num_layers", "whole number, at least 1"),
        ("collection.epsilon", "number, at least 0, at most 1"),
        ("world_model.dropout", "number, at least 0, below 1"),
        ("tokenizer.training.learning_rate", "number, above 0"),
        ("tokenizer.training.stop_after_epoch", "whole number, at least 1 or null"),
        ("tokenizer.channels", "list of 1 or more, each: whole number, at least 1"),
        ("runtime.trackers", "list of any number, each: tensorboard | wandb"),
        ("runtime.overlap_tests", "auto | on | off"),
        ("imagination.mask_after_end", "true | false"),
        ("seed", "whole number, at least 0, below 2147483648"),
        ("preset", "paper | quick | corrected | paper-text | iris | iris-rem"),
        ("variant", " | ".join(VARIANTS)),
    ],
)
def test_allowed_values_in_words(key: str, text: str) -> None:
    assert explain_key(key).allowed == text


def test_sections() -> None:
    of = explain("world_model.training")
    assert isinstance(of, SectionExplanation)
    assert of.keys["world_model.training.learning_rate"] == 2e-4
    assert list(explain("world_model").keys) == [k for k in keys() if k.startswith("world_model.")]
    assert all(explain(name).meaning for name in sections())


def test_unknown_names_the_nearest_key_or_section() -> None:
    with pytest.raises(UserError, match=r"unknown key 'horizn': did you mean imagination\.horizon"):
        explain("horizn")
    with pytest.raises(UserError, match=r"unknown key 'worldmodel': did you mean world_model"):
        explain("worldmodel")


def test_differences_leave_labels_out_and_count_a_games_own_override_to_paper() -> None:
    assert differences(resolve("Freeway", seed=5)) == {}
    assert differences(resolve("Freeway", sets=["collection.temperature=1"])) == {
        "collection.temperature": {"value": 1.0, "paper": 0.01}
    }


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), ([1, 2], "[1, 2]"), (1e-6, "1.0e-06"), ("a", "a"), (True, "true")]
)
def test_plain_values(value: Any, text: str) -> None:
    assert plain(value) == text


# --- the schema of the file


def node_of(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """The schema's node of a nested key."""
    node = schema
    for name in key.split("."):
        node = node["properties"][name]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] | {k: v for k, v in node.items() if k != "$ref"}
    return node


def test_schema_has_every_key_of_a_file_and_no_label() -> None:
    schema = file_schema()
    for key in keys():
        if key in NOT_OVERRIDES:
            assert key not in schema["properties"]
        else:
            assert node_of(schema, key)["description"]
            assert allowed(node_of(schema, key)) == explain_key(key).allowed


def test_schema_lets_a_file_give_any_part_nested_or_dotted_and_nothing_unknown() -> None:
    schema = file_schema()
    for node in (schema, *schema["$defs"].values()):
        assert "required" not in node
        assert node["additionalProperties"] is False
        (dotted,) = node["patternProperties"]
        assert re.search(dotted, "training.batch_size")
        assert not re.search(dotted, "batch_sise")


def test_schema_defaults_are_the_sections_own() -> None:
    schema = file_schema()
    for name in ("tokenizer", "world_model", "controller"):
        default = node_of(schema, f"{name}.training")["default"]
        assert flatten({name: {"training": default}}).items() <= keys().items()
