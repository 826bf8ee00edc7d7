"""Bundles that were changed by hand, with the checksums of what is now in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from remctl.config import build, config_hash, from_yaml, to_yaml


def seal(bundle: Path) -> None:
    """Write the checksums of the listed files as they are now."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    for name in manifest["files"]:
        data = (bundle / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def change(path: Path, **values: Any) -> None:
    """Other values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def reconfigure(bundle: Path, **values: Any) -> None:
    """Make it the bundle of a run with other settings, by dotted key, as somebody who knows how would."""
    config = build(values, over=from_yaml(bundle / "config.yaml"))
    (bundle / "config.yaml").write_text(to_yaml(config))
    change(bundle / "result.json", config_hash=config_hash(config), game=config.game, seed=config.seed)
    change(bundle / "bundle.json", config_hash=config_hash(config), epoch=config.training.num_epochs)
    seal(bundle)
