"""Which code made a result: a version for people to read, and a digest of the package's sources for comparing.

    0.2.0                                          installed from a wheel, or git says nothing about this checkout
    0.2.0+g073b8b3d1f2a                            a checkout, or an editable install of one, at that commit
    0.2.0+g073b8b3d1f2a.changed.5f0c2a9b1d3e       the same with changes; the last part is the digest of the sources

The digest is the same on a machine without git, for a commit that changed only documents, and in the wheel of a checkout.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import remctl
from remctl.errors import MachineError
from remctl.programs import ask_program

NUM_DIGITS = 12
GIT_TIMEOUT_S = 2.0  # git may hang, as on a network file system; a run must not wait for it


class Code(NamedTuple):
    """`version` is for people. `sources`: digest of the package's files; empty if unknown, as for runs before 0.2.0."""

    version: str
    sources: str = ""

    def is_other(self, known: Code) -> bool:
        """Return whether it differs: by the sources if both are known, else by the version."""
        if self.sources and known.sources:
            return self.sources != known.sources
        return self.version != known.version


@cache
def this_code() -> Code:
    """Return the code of this process, as its files were at the first call."""
    return code_of(Path(remctl.__file__).resolve().parent, remctl.__version__)


def code_of(package: Path, release: str) -> Code:
    """Return the code in the folder `package`, of the version `release`. Raises nothing; leaves out what it cannot find."""
    sources, state = digest_of(package), git_state(package)
    if state is None:
        return Code(release, sources)
    commit, is_changed = state
    changed = f".changed.{sources}" if is_changed and sources else ".changed" if is_changed else ""
    return Code(f"{release}+g{commit[:NUM_DIGITS]}{changed}", sources)


def digest_of(package: Path) -> str:
    """Return 12 hexadecimal digits of the names and contents of a package's modules; '' if one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in package.rglob("*.py") if not path.name.startswith(".")):
            content = path.read_bytes()
            digest.update(os.fsencode(f"{path.relative_to(package)}\0{len(content)}\0") + content)
    except OSError:
        return ""
    return digest.hexdigest()[:NUM_DIGITS]


def git_state(package: Path) -> tuple[str, bool] | None:
    """Return the commit of the checkout whose top folder holds `package`, and whether the package differs from it.

    None if there is no such checkout, or git is missing, refuses (`safe.directory`) or does not answer. A repository further
    up does not count: this package was only unpacked or installed in it.
    """
    root = package.parent
    if not (root / ".git").exists() or not _is_ours(root / "pyproject.toml"):
        return None
    command = ("git", "-C", str(root), "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch")
    # git's own variables may name another repository, as in a hook. The ceiling keeps git from looking further up.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_OPTIONAL_LOCKS": "0"}
    try:
        said = ask_program(*command, "--", package.name, timeout_s=GIT_TIMEOUT_S, env=environment)
    except MachineError:
        return None
    lines = said.out.splitlines() if said.status == 0 else []
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    changed = any(not line.startswith("#") for line in lines)
    return (commits[0], changed) if commits and commits[0] != "(initial)" else None


def _is_ours(pyproject: Path) -> bool:
    try:
        return bool(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["name"] == "remctl")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def recorded(entry: Mapping[str, Any]) -> Code | None:
    """Return the code that an entry of provenance.json or a result.json names; None if it names none.

    Entries of version 0.1.0 have the commit in a key of its own.
    """
    version = entry.get("remctl", entry.get("remctl_version"))
    if not isinstance(version, str) or not version:
        return None
    git, sources = entry.get("git"), entry.get("sources")
    if isinstance(git, dict) and git.get("commit"):
        version += f"+g{str(git['commit'])[:NUM_DIGITS]}" + ".changed" * bool(git.get("dirty"))
    return Code(version, sources if isinstance(sources, str) else "")


def distinct(entries: Iterable[Mapping[str, Any]]) -> tuple[Code, ...]:
    """Return each code that these entries name once, in their order."""
    found: list[Code] = []
    for entry in entries:
        code = recorded(entry)
        if code and all(code.is_other(known) for known in found):
            found.append(code)
    return tuple(found)
