"""Run folders as training leaves them, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from remctl.games import folder_name
from tests.cli.conftest import cli  # noqa: F401 - the command line in-process

MakeRun = Callable[..., Path]


def run_files(
    root: Path,
    variant: str = "rem",
    game: str = "Pong",
    seed: int = 0,
    score: float | None = 1.0,
    *,
    experiment: str = "quick",
    epochs: Sequence[dict[str, Any]] = (),
    config: str = "",
    device: str | dict[str, str] = "GPU A",
    starts: Sequence[str] = (),
    **result: Any,
) -> Path:
    """A run folder; without a score it is unfinished."""
    folder = root / experiment / variant / folder_name(game) / f"seed_{seed}"
    folder.mkdir(parents=True)
    head = f"# config_hash: x\npreset: quick\nvariant: {variant}\ngame: {game}\nseed: {seed}\n"
    (folder / "config.yaml").write_text(head + (config or "training:\n  num_epochs: 600\n"))
    lines = [json.dumps({"epoch": i + 1} | entry) + "\n" for i, entry in enumerate(epochs)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    described = device if isinstance(device, dict) else {"name": device}
    begun = [*({"name": name} for name in starts), described]
    (folder / "provenance.json").write_text(json.dumps([{"device": each} for each in begun]))
    content = {"score": score, "game": game, "seed": seed, "variant": variant, "num_episodes": 100, "preset": "quick"}
    content |= {"config_hash": f"{variant}-{game}-{seed}", "remctl_version": "0.1.0", "device": described}
    if score is not None:
        (folder / "result.json").write_text(json.dumps(content | result))
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`run_files` below `tmp_path / "runs"`."""

    def make(*args: Any, **kwargs: Any) -> Path:
        return run_files(tmp_path / "runs", *args, **kwargs)

    return make


def experiment_file(folder: Path, control: str = "rem", runs: Sequence[dict[str, Any]] = (), **labels: str) -> None:
    """experiment.json as the launcher of ablations writes it; each run: variant, game, seed, path, and its hash if odd."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{"config_hash": f"{r['variant']}-{r['game']}-{r['seed']}"} | r for r in runs]
    variants = [{"name": name, "label": label} for name, label in labels.items()]
    content = {"name": folder.name, "question": "Why?", "control": control, "variants": variants, "runs": entries}
    (folder / "experiment.json").write_text(json.dumps(content))
