"""config.yaml on disk: files of this schema, of version 0.1.0, and of a newer remctl."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from remctl.config import config_hash, from_yaml, known_hashes, precision_of_schema_1, resolve, stored, to_yaml
from remctl.config.hashing import baseline
from remctl.config.stored import SCHEMA
from remctl.errors import UserError

OLD = Path(__file__).parents[1] / "data" / "runs_0_1_0" / "old"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_a_file_is_known_by_the_hash_that_it_states(file: Path) -> None:
    config = resolve("Catch", preset="quick", seed=3)
    file.write_text(to_yaml(config))
    assert known_hashes(file) == (config_hash(config),)
    assert file.read_text().splitlines()[:2] == [f"# config_hash: {config_hash(config)}", f"schema: {SCHEMA}"]


def test_no_file_and_no_configuration_are_known_by_no_hash(file: Path) -> None:
    assert known_hashes(file) == ()
    file.write_text("nothing: [\n")
    assert known_hashes(file) == ()
    file.write_text("# config_hash: 0123456789ab\nnothing: [\n")
    assert known_hashes(file) == ("0123456789ab",)


@pytest.mark.parametrize(("variant", "stated"), [("rem", "f34645391923"), ("no_pop", "491cf6566d7e")])
def test_a_file_of_0_1_0_is_known_by_todays_hash_and_its_own(variant: str, stated: str) -> None:
    path = OLD / variant / "Catch" / "seed_0" / "config.yaml"
    today = config_hash(from_yaml(path))
    assert known_hashes(path) == (today, stated)
    assert today != stated


@pytest.mark.parametrize(("precision", "now"), [("bf16", "auto"), ("fp32", "fp32")])
def test_the_precision_that_0_1_0_configured_is_that_of_the_device_now(file: Path, precision: str, now: str) -> None:
    tree = yaml.safe_load((OLD / "rem" / "Catch" / "seed_0" / "config.yaml").read_text())
    tree["training"]["precision"] = precision
    file.write_text(yaml.safe_dump(tree))
    assert (from_yaml(file).runtime.precision, precision_of_schema_1(file)) == (now, precision)
    tree["training"]["precision"] = "bf16" if precision == "fp32" else "fp32"
    other = file.with_name("other.yaml")
    other.write_text(yaml.safe_dump(tree))
    assert known_hashes(file)[0] == known_hashes(other)[0]


def test_a_key_that_a_file_lacks_is_what_the_program_did_before_it(file: Path) -> None:
    tree = yaml.safe_load(to_yaml(resolve("Pong")))
    del tree["world_model"]["dropout"], tree["environment"]
    file.write_text(yaml.safe_dump(tree))
    then = ["environment.late_game_over=false", "environment.dead_starts=false", "environment.time_limit_ends=false"]
    assert from_yaml(file) == resolve("Pong", sets=then)


def test_what_the_program_did_before_a_key_need_not_be_its_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = yaml.safe_load(to_yaml(resolve("Pong")))
    del tree["world_model"]["dropout"]
    file.write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(stored, "baseline", lambda: {**baseline(), "world_model.dropout": 0.3})
    assert from_yaml(file).world_model.dropout == 0.3


def test_an_edited_file_is_read_again(file: Path) -> None:
    text = (OLD / "rem" / "Catch" / "seed_0" / "config.yaml").read_text()
    file.write_text(text)
    before = known_hashes(file)
    file.write_text(text.replace("discount: 0.995", "discount: 0.5"))
    assert known_hashes(file)[0] != before[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            f"schema: {SCHEMA}",
            f"schema: {SCHEMA + 1}",
            rf"written by a newer remctl \(schema {SCHEMA + 1}; .*: update remctl",
        ),
        (f"schema: {SCHEMA}", "schema: two", "schema is 'two', not a whole number from 1: restore"),
        (f"schema: {SCHEMA}", "schema: true", "schema is true, not a whole number from 1: restore"),
        (f"schema: {SCHEMA}", "schema: 0", "schema is 0, not a whole number from 1: restore"),
        ("  num_epochs:", "  new_key: 1\n  num_epochs:", r"training\.new_key.*a newer remctl .*: update remctl"),
    ],
)
def test_what_this_version_cannot_read_is_refused_with_the_remedy(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(to_yaml(resolve("Pong")).replace(old, new))
    with pytest.raises(UserError, match=message):
        from_yaml(file)
