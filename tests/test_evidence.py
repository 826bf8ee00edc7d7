"""The committed agents: whole, small enough, documented with their scores, and still playing as they did."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from remctl.exchange.checking import check
from remctl.runs.bundle import unlisted, verify
from remctl.runs.files import read_json
from remctl.runs.layout import RunFolder

ROOT = Path(__file__).parent.parent
EVIDENCE = ROOT / "reports" / "evidence"
BUNDLES = sorted(file.parent for file in EVIDENCE.glob("*/*/bundle.json"))
MIB = 2**20


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_a_bundle_is_whole_and_small(folder: Path) -> None:
    bundle = RunFolder(folder)
    assert unlisted(bundle, verify(bundle)) == []
    assert size(folder) <= 3 * MIB


def test_all_evidence_is_small() -> None:
    assert size(EVIDENCE) <= 60 * MIB


def test_the_documents_give_the_scores_of_the_bundles() -> None:
    results = defaultdict(list)
    for folder in BUNDLES:
        results[folder.parent.name].append(read_json(folder / "result.json"))
    assert len(results) >= 2
    listed = (EVIDENCE / "README.md").read_text()
    first_screen = (ROOT / "README.md").read_text().split("\n## ")[0]
    for name, runs in results.items():
        row = next(line for line in listed.splitlines() if f"`{name}/" in line)
        scores = [f"{run['score']:.3f}" for run in runs]
        assert [f"{float(number):.3f}" for number in re.findall(r"-?\d+\.\d+", row.split("|")[-2])] == scores
        assert f"--game {runs[0]['game']} " in row
        shown = next(line for line in first_screen.splitlines() if f"{runs[0]['env_steps']:,}" in line)
        assert [f"{float(number):.3f}" for number in shown.split("|")[4].split(", ")] == scores
        minutes = [sum(run["wall_s"].values()) / 60 for run in runs]
        assert shown.split("|")[6].strip() == f"{min(minutes):.1f} to {max(minutes):.1f}"


def test_the_smallest_agent_plays_as_it_did() -> None:
    playable = [folder for folder in BUNDLES if "MiniGrid" in (folder / "config.yaml").read_text()]
    found = check(min(playable, key=size), None, "cpu", None)
    assert found["agrees"], found["comparison"]
