"""A bundle: a finished run as a small folder to publish, with a checksum of every file in bundle.json.

    bundle.json  {format, remctl, epoch, config_hash, precisions, files: {name: {sha256, bytes}}}

It is read like a run folder once its checksums match, and never written into. agent.safetensors holds the weights and no code.
Files that bundle.json does not list are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remctl.errors import MachineError, UserError
from remctl.runs.code import this_code
from remctl.runs.files import is_described, named_errors, names_below, read_json, write_json
from remctl.runs.layout import RunFolder

FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20
REMEDY = "copy it again from where it came from"


@dataclass(frozen=True)
class Manifest:
    """What bundle.json says. `precisions` that the epochs were computed in, the last one last."""

    epoch: int
    config_hash: str
    precisions: tuple[str, ...]
    files: dict[str, dict[str, Any]]


def write_manifest(bundle: RunFolder, epoch: int, config_hash: str, precisions: tuple[str, ...]) -> None:
    """List every file that is in the folder. Raises MachineError."""
    with named_errors("reading", bundle.path):
        files = {name: _described((bundle.path / name).read_bytes()) for name in names_below(bundle.path)}
    about = {"epoch": epoch, "config_hash": config_hash, "precisions": list(precisions)}
    write_json(bundle.manifest, {"format": FORMAT, "remctl": this_code().version, **about, "files": files})


def verify(bundle: RunFolder) -> Manifest:
    """Compare every file with its checksum.

    Raises MachineError naming the first file that is missing or damaged, UserError for a newer format.
    """
    manifest = read_manifest(bundle)
    for name in manifest.files:
        read_file(bundle, manifest, name)
    return manifest


def read_file(bundle: RunFolder, manifest: Manifest, name: str) -> bytes:
    """Return the content of one listed file. Raises MachineError if it is not what was listed."""
    path, expected = bundle.path / name, manifest.files[name]
    if any(part.is_symlink() for part in (path, *path.parents[: len(Path(name).parts) - 1])):
        raise _damaged(bundle, f"{name} is a link")
    if not path.is_file():
        raise _damaged(bundle, f"{name} is missing")
    with named_errors("reading", path):
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise _damaged(bundle, f"{name} has {size} bytes, not {expected['bytes']}")
        data = path.read_bytes()
    if _described(data)["sha256"] != expected["sha256"]:
        raise _damaged(bundle, f"{name} does not match its checksum")
    return data


def unlisted(bundle: RunFolder, manifest: Manifest) -> list[str]:
    """Return the files in a bundle's folder that are not part of it. Raises MachineError."""
    ours = {*manifest.files, bundle.manifest.name}
    return [name for name in names_below(bundle.path) if name not in ours]


def read_manifest(bundle: RunFolder) -> Manifest:
    """Return what bundle.json says, without looking at the files. Raises MachineError, UserError for a newer format."""
    if bundle.manifest.is_symlink() or not bundle.manifest.is_file():
        raise _damaged(bundle, f"{bundle.manifest.name} is missing")
    try:
        found = read_json(bundle.manifest, MAX_MANIFEST_BYTES)
    except MachineError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise _damaged(bundle, f"{bundle.manifest.name} is not JSON") from error
    version = found.get("format") if isinstance(found, dict) else None
    if type(version) is int and version > FORMAT:
        raise UserError(
            f"{bundle.path} has bundle format {version}, this remctl reads up to format {FORMAT}: update remctl"
        )
    if version != FORMAT or not _is_complete(found):
        raise _damaged(bundle, f"{bundle.manifest.name} does not describe a bundle")
    for name in found["files"]:
        if not _is_inside(name):
            raise _damaged(bundle, f"{bundle.manifest.name} lists {name!r}, which is not a path inside the bundle")
    needed = (bundle.agent.name, bundle.config.name, bundle.result.name)
    if missing := [name for name in needed if name not in found["files"]]:
        raise _damaged(bundle, f"{bundle.manifest.name} does not list {missing[0]}")
    return Manifest(found["epoch"], found["config_hash"], tuple(found["precisions"]), found["files"])


def _is_complete(found: Mapping[str, Any]) -> bool:
    precisions, files = found.get("precisions"), found.get("files")
    return (
        type(found.get("epoch")) is int
        and isinstance(found.get("config_hash"), str)
        and isinstance(precisions, list)
        and all(isinstance(each, str) for each in precisions)
        and isinstance(files, dict)
        and all(map(is_described, files.values()))
    )


def _is_inside(name: str) -> bool:
    """Whether it is written as a path below the folder, the same everywhere."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not any(part in ("", ".", "..") for part in parts)


def _described(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _damaged(bundle: RunFolder, what: str) -> MachineError:
    return MachineError(f"{bundle.path} is a damaged bundle ({what}): {REMEDY}")
