"""What of a run's files may be published: nothing that names the machine, its users, or their folders."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remctl.errors import UserError

START = ("time", "command", "remctl", "sources", "git", "python", "packages", "machine", "device")
MACHINE = ("platform", "cpu", "num_cores", "num_cores_usable", "ram_mb")
DEVICE = ("type", "name", "memory_mb", "threads", "precision")
# A path that says where somebody works, at the beginning of an argument or after one of these signs.
_PLACE = re.compile(r"(?:(?<=^)|(?<=[=,:;\[({\s'\"]))(?:~[\w.-]*|\.\.)?/[^\s,;:'\"\])}]*")
_ARCHITECTURE = re.compile(r"x86_64|amd64|aarch64|arm64|ppc64le|riscv64")


def public_start(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of provenance.json without the host's name, the kernel's build, SLURM's ids and absolute paths."""
    kept = {name: entry[name] for name in START if name in entry}
    for name, names in (("machine", MACHINE), ("device", DEVICE)):
        if isinstance(kept.get(name), Mapping):
            kept[name] = {key: value for key, value in kept[name].items() if key in names}
    if isinstance(kept.get("machine"), dict) and "platform" in kept["machine"]:
        kept["machine"]["platform"] = _system(str(kept["machine"]["platform"]))
    if isinstance(kept.get("command"), list):
        kept["command"] = public_command(kept["command"])
    return kept


def public_command(command: Sequence[object]) -> list[str]:
    """Return a command line as `remctl ...`, in which of a path outside the working folder only the last name is left."""
    return ["remctl", *(_shortened(str(word)) for word in command[1:])]


def refuse_places(texts: Mapping[str, str], *folders: Path) -> None:
    """Raise UserError for a text, by its file's name, in which the user's home, the working folder or another place is left."""
    places = {str(path) for path in (Path.home(), Path.cwd(), Path(tempfile.gettempdir()), *folders)}
    for name, text in texts.items():
        for place in sorted(place for place in places if len(place) > 1):
            if re.search(rf"(?<![\w.~-]){re.escape(place)}(?![\w-])", text):
                raise UserError(
                    f"{name} has a path of this machine in it, {place}, which a bundle would publish and nobody else has: "
                    "train with a relative path"
                )


def _shortened(word: str) -> str:
    option, sign, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if value.startswith(("/", "~")) or ".." in value.split("/"):  # a whole path, whatever signs are in it
        return f"{option}{sign}{_name(value)}"
    return option + sign + _PLACE.sub(lambda found: _name(found[0]), value)


def _name(path: str) -> str:
    return next((part for part in reversed(path.split("/")) if part not in ("", ".", "..") and part[0] != "~"), ".")


def _system(platform: str) -> str:
    """Linux-6.1.0-cloud-x86_64-with-glibc2.36 without the kernel's build."""
    found = _ARCHITECTURE.search(platform)
    return " ".join(filter(None, (platform.split("-")[0], found[0] if found else "")))
