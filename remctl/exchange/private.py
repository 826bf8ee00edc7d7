"""What of a run's files may be published: nothing that names the machine, its users, or their folders."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remctl.config import yaml12
from remctl.errors import UserError

START = ("time", "command", "remctl", "sources", "git", "python", "packages", "machine", "device")
MACHINE = ("platform", "cpu", "num_cores", "num_cores_usable", "ram_mb")
DEVICE = ("type", "name", "memory_mb", "threads", "instructions", "precision")
# A path that says where somebody works, with the spaces in it, at the beginning of an argument or after one of these signs.
_PLACE = re.compile(r"(?:(?<=^)|(?<=[=,:;\[({\s'\"]))(?:~[\w.-]*|\.\.)?/[^,;:'\"\])}]*")
_QUOTED = re.compile(r"(?<=')(?:~[\w.-]*|\.\.)?/[^']*(?=')|(?<=\")(?:~[\w.-]*|\.\.)?/[^\"]*(?=\")")
_KEYS = re.compile(r"(?:-[A-Za-z](?=[~/.])|[\w.-]+=)*")  # --set=a.b=, or -o before a path
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
    """Raise UserError for a text, by its file's name, in which the user's home, the working folder or another place is left.

    In a configuration every path that is not relative is one.
    """
    paths = {str(path) for path in (Path.home(), Path.cwd(), Path(tempfile.gettempdir()), *folders)}
    places = sorted(path for path in paths if len(path) > 1)
    for name, text in texts.items():
        for string in _strings(name, text):
            found = [p for p in places if re.search(rf"(?<![\w.~-]){re.escape(p)}(?![\w-])", string)]
            if name.endswith(".yaml"):
                found += [place for each in _PLACE.finditer(string) if (place := each[0]) != "/"]
                found += [string] if string.startswith("~") else []
            if found:
                raise UserError(
                    f"{name} has a path of this machine in it, {found[0]}, which a bundle would publish and nobody else has: "
                    "train with a relative path"
                )


def _strings(name: str, text: str) -> Iterator[str]:
    """Yield all text of a file without what JSON and YAML write for letters that are not English."""
    loaders: dict[str, Callable[[str], Any]] = {".jsonl": json.loads, ".json": json.loads, ".yaml": yaml12.load}
    load = loaders.get(Path(name).suffix, str)
    for part in text.splitlines() if name.endswith(".jsonl") else [text]:
        try:
            yield from _strings_in(load(part))
        except ValueError:  # half a line
            yield part


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings_in([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from _strings_in(item)


def _shortened(word: str) -> str:
    keys = _KEYS.match(word)
    assert keys is not None  # it may be empty
    value = word[keys.end() :]
    if value.startswith(("/", "~")) or ".." in value.split("/"):  # a whole path, whatever signs are in it
        return keys[0] + _name(value)
    for pattern in (_QUOTED, _PLACE):
        value = pattern.sub(lambda found: _name(found[0]), value)
    return keys[0] + value


def _name(path: str) -> str:
    return next((part for part in reversed(path.split("/")) if part not in ("", ".", "..") and part[0] != "~"), ".")


def _system(platform: str) -> str:
    """Linux-6.1.0-cloud-x86_64-with-glibc2.36 without the kernel's build."""
    found = _ARCHITECTURE.search(platform)
    return " ".join(filter(None, (platform.split("-")[0], found[0] if found else "")))
