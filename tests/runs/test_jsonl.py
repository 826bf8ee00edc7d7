"""JSON lines: whole lines only, whatever a kill or a full disk left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from remctl.errors import CAUSES, MachineError
from remctl.runs import files
from tests.runs.test_files import boundaries, fail_at


def test_lines_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert files.read_jsonl(path) == []
    files.append_line(path, {"a": 1})
    files.append_lines(path, [{"a": 2}, {"a": "line\nbreak"}])
    assert files.read_jsonl(path) == [{"a": 1}, {"a": 2}, {"a": "line\nbreak"}]


@pytest.mark.parametrize("half", [b'{"a": 2', b'{"a": 2}', b"\x00" * 4096, b'{"a": "' + b"x" * 200_000, b"\xff"])
def test_a_half_written_last_line_is_ignored_and_dropped(tmp_path: Path, half: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + half)
    assert files.read_jsonl(path) == [{"a": 1}]
    assert path.read_bytes().endswith(half), "reading must not write"
    files.append_line(path, {"a": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'


def test_a_file_that_is_only_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a"')
    assert files.read_jsonl(path) == []
    files.append_line(path, {"a": 1})
    assert files.read_jsonl(path) == [{"a": 1}]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"", b"\xff", b"[" * 100_000])
def test_a_damaged_whole_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" + line + b"\n{}\n")
    with pytest.raises(MachineError, match=r"a\.jsonl line 2 is damaged"):
        files.read_jsonl(path)


def test_what_json_cannot_hold_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\nhalf')
    with pytest.raises(TypeError):
        files.append_lines(path, [{"a": 1}, {"a": object()}])
    assert path.read_bytes() == b'{"a": 1}\nhalf'


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_boundary_of_append_loses_no_earlier_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "a.jsonl"
    start = b'{"a": 1}\nhalf'

    def append() -> None:
        files.append_line(path, {"a": 2})

    path.write_bytes(start)
    names = boundaries(append, monkeypatch)
    assert names[::2] == ["before truncate a.jsonl", "before write a.jsonl", "before fsync a.jsonl"]
    for index in range(len(names)):
        path.write_bytes(start)
        with monkeypatch.context() as patch:
            patch.setattr(files, "boundary", fail_at(index, code))
            with pytest.raises(MachineError, match=f"{CAUSES[code][0]} while writing {path}"):
                append()
        assert files.read_jsonl(path) in ([{"a": 1}], [{"a": 1}, {"a": 2}])
        append()
        assert files.read_jsonl(path)[-1] == {"a": 2}


def test_append_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    files.append_line(tmp_path / "a.jsonl", {})
    assert flushed == [str(tmp_path / "a.jsonl"), str(tmp_path)]


def test_truncate_keeps_lines_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1,   "b": 1e0}\n{"a": 2}\n{"a": 3}\nhalf')
    assert files.truncate_jsonl(path, lambda entry: entry["a"] != 2) == 1
    assert path.read_bytes() == b'{"a":1,   "b": 1e0}\n{"a": 3}\n'


def test_truncate_leaves_alone_what_has_nothing_to_drop(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert files.truncate_jsonl(path, lambda entry: True) == 0
    assert not path.exists()
    path.write_bytes(b'{"a": 1}\n')
    before = path.stat()
    assert files.truncate_jsonl(path, lambda entry: True) == 0
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
