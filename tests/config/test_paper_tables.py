"""The tables of the paper, row by row, against the preset that takes the text's side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from remctl.cli import app
from remctl.config import keys, resolve
from remctl.train.build import build_agent, build_optimizers
from tests.tiny import TINY

TESTS, DOCS = Path(__file__).parents[1], Path(__file__).parents[2] / "docs"
DIFFERENCES, PARITY = (DOCS / "text-and-code.md").read_text(), (DOCS / "parity.md").read_text()
TABLES = pd.read_csv(TESTS / "data" / "paper_tables.csv", dtype=str, keep_default_na=False)
KNOWN = {"Terminate on life loss (train)", "Terminate on life loss (test)"}  # the table has the two the wrong way round

# What a table prints, from the value of the key.
PRINTED = {
    "tokenizer.grid_size": lambda side: side**2,
    "environment.frame_size": lambda side: f"{side}x{side}",
    "environment.end_on_life_loss": lambda ends: "Yes" if ends else "No",
    "environment.time_limit_train_frames": lambda frames: f"{frames // 1000}K",
    "environment.time_limit_test_frames": lambda frames: f"{frames // 1000}K",
    "controller.conv_channels": lambda widths: " ".join(map(str, widths)),
}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What `remctl config show --preset paper-text` prints, by dotted key."""
    output = CliRunner().invoke(app, ["config", "show", "--preset", "paper-text"]).stdout
    found = {}
    for section, values in yaml.safe_load(output).items():
        for name, value in values.items() if isinstance(values, dict) else ():
            for last, leaf in value.items() if isinstance(value, dict) else [("", value)]:
                found[".".join(filter(None, (section, name, last)))] = leaf
    return found


@pytest.mark.parametrize(
    "row", list(TABLES[TABLES["keys"] != ""].itertuples()), ids=lambda row: f"{row.table}-{row.row}"
)
def test_a_row_is_what_paper_text_has_or_stands_in_the_list_of_differences(row: Any, shown: dict[str, Any]) -> None:
    for key in row.keys.split():
        printed = PRINTED.get(key, lambda value: value)(shown[key])
        is_equal = same(printed, row.value)
        assert is_equal == (row.row not in KNOWN), f"{key} is {printed}, Table {row.table} says {row.value}"
        assert is_equal or f"`{key}`" in DIFFERENCES


def same(printed: Any, value: str) -> bool:
    try:
        return float(printed) == float(value)
    except ValueError:
        return str(printed).lower() == value.lower()


def test_rows_without_a_key_are_listed_or_what_the_optimiser_does() -> None:
    rest = TABLES[TABLES["keys"] == ""].set_index("row")["value"].to_dict()
    betas = float(rest.pop("AdamW beta 1")), float(rest.pop("AdamW beta 2"))
    agent = build_agent(resolve("Catch", "quick", sets=TINY), 3, torch.device("cpu"))
    assert {group["betas"] for o in build_optimizers(agent).values() for group in o.param_groups} == {betas}
    assert set(rest) <= KNOWN


def test_parity_names_tests_that_are_here_and_what_paper_has() -> None:
    named = re.findall(r"`((?:\w+/)+(?:test_\w+\.py)?)`", PARITY)
    assert len(named) == len(re.findall(r"test_\w+\.py", PARITY)) + 4, "folders: envs, replay, iris, tests"
    assert all((TESTS.parent / name).exists() or (TESTS / name).exists() for name in named)
    chosen = dict(pair.split("=") for pair in re.findall(r"`(\w+\.\w+=\w+)`", PARITY))
    assert len(chosen) == 5
    assert {key: keys(resolve("Pong"))[key] for key in chosen} == {k: yaml.safe_load(v) for k, v in chosen.items()}
