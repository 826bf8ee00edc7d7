"""Which code made a result: of a checkout, of somebody else's repository, and where git cannot be asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from remctl.runs import code
from remctl.runs.code import Code, code_of, distinct, recorded

SLEEP = shutil.which("sleep")
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "x")
    return git(root, "rev-parse", "HEAD")[:12]


def unpacked(root: Path) -> Path:
    """The files of a checkout without their repository; returns the package's folder."""
    package = root / "remctl"
    (package / "train").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "train" / "step.py").write_text("lr = 1\n")
    (root / "pyproject.toml").write_text('[project]\nname = "remctl"\n')
    return package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package in a checkout, committed."""
    made = unpacked(tmp_path / "checkout")
    git(made.parent, "init", "-q")
    commit(made.parent)
    return made


def version(package: Path) -> str:
    return code_of(package, "9.9").version


def head(package: Path) -> str:
    return f"9.9+g{git(package, 'rev-parse', 'HEAD')[:12]}"


def test_a_checkout_is_known_by_its_commit_and_two_changed_states_are_told_apart(package: Path) -> None:
    assert version(package) == head(package)
    clean = code_of(package, "9.9")
    step = package / "train" / "step.py"
    step.write_text("lr = 2\n")
    first = code_of(package, "9.9")
    step.write_text("lr = 3\n")
    second = code_of(package, "9.9")
    step.write_text("lr = 1\n")
    (package / "new.py").write_text("untracked, yet part of what runs")
    third = code_of(package, "9.9")
    assert all(made.version == f"{head(package)}.changed.{made.sources}" for made in (first, second, third))
    assert len({clean.sources, first.sources, second.sources, third.sources}) == 4
    (package / "new.py").unlink()
    assert code_of(package, "9.9") == clean


def test_a_commit_of_documents_is_the_same_code(package: Path) -> None:
    before = code_of(package, "9.9")
    (package.parent / "README.md").write_text("not the package")
    assert code_of(package, "9.9") == before
    commit(package.parent)
    after = code_of(package, "9.9")
    assert after.version == head(package) != before.version
    assert not after.is_other(before)


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize("place", ["vendor/rem", "lib/python/site-packages", "."])
def test_the_commit_of_an_outer_repository_is_not_taken(place: str, is_committed: bool, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    inner = unpacked(outer / place)
    if place != "vendor/rem":  # installed, not unpacked
        (inner.parent / "pyproject.toml").write_text('[project]\nname = "somebody-elses"\n')
    git(outer, "init", "-q")
    (outer / "theirs.txt").write_text("")
    if is_committed:
        commit(outer)
    else:
        git(outer, "add", "theirs.txt")
        git(outer, "commit", "-q", "-m", "x")
    assert version(inner) == "9.9"


def test_a_checkout_inside_another_repository_keeps_its_own_commit(package: Path) -> None:
    git(package.parent.parent, "init", "-q")
    (package.parent.parent / "theirs.txt").write_text("")
    theirs = commit(package.parent.parent)
    assert version(package) == head(package)
    assert theirs not in version(package)
    shutil.rmtree(package.parent / ".git")
    (package.parent / ".git").mkdir()  # damaged: git would look further up
    assert version(package) == "9.9"


def test_a_hook_of_another_repository_says_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    expected = head(package)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert version(package) == expected


def test_worktrees_and_shallow_clones_are_checkouts(package: Path, tmp_path: Path) -> None:
    (package / "second.py").write_text("")
    commit(package.parent)
    git(package.parent, "worktree", "add", "-q", str(tmp_path / "tree"))
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{package.parent}", "shallow")
    assert {version(tmp_path / name / "remctl") for name in ("tree", "shallow")} == {head(package)}


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    made = unpacked(tmp_path)
    git(tmp_path, "init", "-q")
    assert version(made) == "9.9"


@pytest.mark.parametrize("script", ["exit 128", "echo nonsense", "sleep 60", None])
def test_where_git_does_not_answer_the_sources_still_tell(
    script: str | None, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = code_of(package, "9.9")
    (tmp_path / "bin").mkdir()
    if script:
        fake = tmp_path / "bin" / "git"
        fake.write_text(f"#!/bin/sh\n{script.replace('sleep', f'exec {SLEEP}')}\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(code, "GIT_TIMEOUT_S", 0.3)
    begin = time.monotonic()
    found = code_of(package, "9.9")
    assert time.monotonic() - begin < 30
    assert found == Code("9.9", known.sources)
    assert not found.is_other(known)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_checkout_of_another_owner_that_git_refuses(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(package.parent.parent))  # no safe.directory set there
    for path in (package.parent, package.parent / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert version(package) in ("9.9", f"9.9+g{_read_head(package)}")  # what git makes of it, without an error
    assert code_of(package, "9.9").sources


def _read_head(package: Path) -> str:
    folder = package.parent / ".git"
    return (folder / (folder / "HEAD").read_text().split()[-1]).read_text()[:12]


def test_what_cannot_be_read_has_no_digest(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / ".#step.py").symlink_to("nowhere")  # an editor's
    assert code_of(package, "9.9").sources
    (package / "gone.py").symlink_to("nowhere")
    assert code_of(package, "9.9") == Code(f"{head(package)}.changed", "")


def test_codes_are_compared_by_sources_if_both_are_known() -> None:
    assert Code("1", "a").is_other(Code("1", "b"))
    assert not Code("1", "a").is_other(Code("2", "a"))
    assert Code("1").is_other(Code("2", "a"))
    assert not Code("1").is_other(Code("1", "a"))


def test_what_a_record_names() -> None:
    assert recorded({"remctl": "1", "sources": "a"}) == Code("1", "a")
    assert recorded({"remctl_version": "1", "sources": 3}) == Code("1")
    assert recorded({"remctl": "0.1.0", "git": {"commit": "f" * 40, "dirty": True}}) == Code(
        "0.1.0+gffffffffffff.changed"
    )
    assert [recorded(entry) for entry in ({}, {"remctl": None}, {"remctl": ""}, {"remctl_version": [1]})] == [None] * 4
    entries = [{"remctl": "1", "sources": "a"}, {"remctl": "2", "sources": "a"}, {"remctl": "2", "sources": "b"}, {}]
    assert distinct(entries) == (Code("1", "a"), Code("2", "b"))
