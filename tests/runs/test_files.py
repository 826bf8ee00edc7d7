"""Atomic files and JSON lines: every write boundary is met with a kill and with an operating system error."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remctl.errors import CAUSES, MachineError, UserError, machine_error
from remctl.runs import files

ROOT = Path(__file__).parents[2]


def boundaries(action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the boundaries that `action` passes."""
    names: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "boundary", names.append)
        action()
    return names


def fail_at(index: int, code: int) -> Callable[[str], None]:
    """A boundary that raises OSError(code) at its `index`-th call."""
    calls = iter(range(10**6))

    def boundary(name: str) -> None:
        if next(calls) == index:
            raise OSError(code, f"injected at {name}")

    return boundary


def kill_at(index: int) -> Callable[[str], None]:
    """A boundary that kills its process at its `index`-th call."""
    calls = iter(range(10**6))

    def boundary(name: str) -> None:
        if next(calls) == index:
            os.kill(os.getpid(), signal.SIGKILL)

    return boundary


def killed_in_child(action: Callable[[], object], index: int) -> bool:
    """Runs `action` in a forked child that dies at boundary `index`; whether it did (else it finished)."""
    pid = os.fork()
    if pid == 0:
        vars(files)["boundary"] = kill_at(index)
        action()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- whole files ---


def test_write_atomic_writes_text_and_bytes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_atomic(path, "Größe")
    assert path.read_bytes() == "Größe".encode()
    files.write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names_in(tmp_path) == ["a.txt"]


def test_what_a_killed_process_of_the_same_pid_left_does_not_shine_through(tmp_path: Path) -> None:
    files.temporary(tmp_path / "a").write_text("longer than what comes")  # in a container every start has the same pid
    files.write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_write_atomic_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_write_atomic_flushes_the_file_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        real_fsync(fd)

    def replace(source: Path, target: Path) -> None:
        events.append(f"rename {Path(target).name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_atomic(tmp_path / "a", "x")
    assert events == [f"fsync .tmp-{os.getpid()}-a", "rename a", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_boundary_of_write_atomic_leaves_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "a.json"
    names = boundaries(lambda: files.write_atomic(path, "new"), monkeypatch)
    assert "before write a.json" in names
    assert "after fsync a.json" in names
    for index, name in enumerate(names):
        path.write_text("old")
        with monkeypatch.context() as patch:
            patch.setattr(files, "boundary", fail_at(index, code))
            with pytest.raises(MachineError, match=CAUSES[code][0]) as caught:
                files.write_atomic(path, "new")
        assert str(path) in str(caught.value)
        assert path.read_text() == ("new" if index > names.index("before rename a.json") else "old"), name
        assert names_in(tmp_path) == ["a.json"], name


def test_a_kill_at_any_boundary_of_write_atomic_leaves_a_whole_file() -> None:
    """In a process of its own: this one may have threads, which a fork does not survive."""
    code = "from tests.runs.test_files import check_kills_of_write_atomic as check; check()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def check_kills_of_write_atomic() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a"
        index = 0
        path.write_text("old")
        while killed_in_child(lambda: files.write_atomic(path, "new"), index):
            assert path.read_text() in ("old", "new"), index
            files.remove_stale(path.parent)
            assert names_in(path.parent) == ["a"], index
            path.write_text("old")
            index += 1
        assert index == 10  # create, write, fsync, rename, fsync of the folder: before and after each
        assert path.read_text() == "new"


def test_remove_stale_takes_only_temporary_names(tmp_path: Path) -> None:
    for name in (".tmp-12-a", ".tmp-mine", "a", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".tmp-3-folder" / "inside").mkdir(parents=True)
    files.remove_stale(tmp_path)
    assert names_in(tmp_path) == [".hidden", ".tmp-mine", "a"]


def test_remove_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    files.remove(tmp_path / "link")
    assert names_in(tmp_path) == ["kept"]
    assert names_in(tmp_path / "kept") == ["file"]


# --- real refusals of the machine ---


def test_full_disk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(MachineError) as caught:
        files.append_line(path, {"epoch": 1})
    assert str(caught.value) == (
        f"disk full while writing {path}: free space and run the same command again; the last checkpoint is intact"
    )
    assert caught.value.exit_code == 1


def test_missing_parent_and_file_as_parent_are_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no such file or folder while writing .*/gone/a"):
        files.write_atomic(tmp_path / "gone" / "a", "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError, match="a file is in the place of a folder"):
        files.write_atomic(tmp_path / "file" / "a", "x")


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that this process may not write to, also when the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "read-only"
        folder.mkdir()
        (folder / "old.jsonl").write_text("{}\n")
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_unwritable_folder_is_named(read_only_folder: Path) -> None:
    for action in (
        lambda: files.write_atomic(read_only_folder / "a", "x"),
        lambda: files.append_line(read_only_folder / "a.jsonl", {}),
        lambda: files.append_line(read_only_folder / "old.jsonl", {}),
        lambda: files.make_folder(read_only_folder / "a"),
        lambda: files.truncate_jsonl(read_only_folder / "old.jsonl", lambda entry: False),
    ):
        with pytest.raises(MachineError, match=f"permission denied while (writing|creating) {read_only_folder}"):
            action()
    assert files.read_jsonl(read_only_folder / "old.jsonl") == [{}]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "disk quota used up"),
        (errno.EIO, "input/output error of the disk"),
        (errno.EROFS, "read-only file system"),
        (errno.EACCES, "permission denied"),
        (errno.ENOENT, "no such file or folder"),
        (errno.EXDEV, os.strerror(errno.EXDEV)),
    ],
)
def test_each_cause_has_a_name_and_a_remedy(code: int, cause: str) -> None:
    message = str(machine_error(OSError(code, "x"), "writing", Path("a/b")))
    assert message.startswith(f"{cause} while writing a/b: ")
    assert len(message.partition("a/b: ")[2]) > 10


def test_make_folder_creates_parents_and_accepts_an_existing_one(tmp_path: Path) -> None:
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


# --- JSON ---


def test_json_stays_valid_with_floats_that_are_not_finite(tmp_path: Path) -> None:
    entry = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (-float("inf"), 0.1 + 0.2)}}
    files.append_line(tmp_path / "a.jsonl", entry)
    files.write_json(tmp_path / "a.json", entry)
    expected = {"a": None, "b": [1.5, None], "c": {"d": [None, 0.1 + 0.2]}}
    for name in ("a.jsonl", "a.json"):
        text = (tmp_path / name).read_text()
        assert json.loads(text, parse_constant=pytest.fail) == expected
    assert files.read_json(tmp_path / "a.json") == expected


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00\x00", ""])
def test_damaged_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MachineError, match="a.json is damaged"):
        files.read_json(tmp_path / "a.json")


def test_json_of_absurd_size_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MachineError, match="larger than"):
        files.read_json(tmp_path / "a.json")


def test_the_package_runs_imports_no_torch() -> None:
    code = (
        "import sys, remctl.runs.lock, remctl.runs.provenance, remctl.runs.metrics; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_where_no_folder_can_be_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    places = {
        tmp_path / "file": "is no folder: choose another",
        tmp_path / "file" / "a": "is no folder, so there can be none in it: choose another",
        tmp_path / "nowhere" / "a": "is a link to nowhere, so there can be none in it: choose another",
        tmp_path / "circle": "is a link to nowhere: choose another",
        Path("/dev/null/a"): "/dev/null is no folder",
        tmp_path / ("a" * 300) / "b": "too long for the name of a folder: choose a shorter one",
    }
    if Path("/proc/self").is_dir():
        places[Path("/proc/x/y")] = "/proc/x: /proc takes no folders: choose another"
    for place, message in places.items():
        for make in (files.make_folder, lambda path: files.refuse_target(path / "file.json")):
            with pytest.raises(UserError, match=message) as caught:
                make(place)
            assert caught.value.exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"file", "nowhere", "circle"}


def test_a_target_that_is_looked_at_leaves_nothing(tmp_path: Path) -> None:
    files.refuse_target(tmp_path / "a" / "b" / "x.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    files.refuse_target(tmp_path / "kept" / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
