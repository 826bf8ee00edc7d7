"""bench.json: what is written is read again, and whatever else lies there is refused in one clear line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remctl.bench import result as bench
from remctl.commands.bench import _targets
from remctl.errors import UserError
from tests.bench.synthetic import result

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    return result().model_dump(mode="json")


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        bench.read(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert len(line) < len(str(path)) + 250
    return line


def written(tmp_path: Path, **changes: Any) -> Path:
    """The synthetic result as a file, with keys of its first case replaced."""
    content = result().model_dump(mode="json")
    content["cases"][0] |= changes
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content))
    return path


HALF = {"low": 0.4, "high": 0.6, "coverage": 1.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"median": 1e5}, "not those of its rounds"),
        ({"seconds": [1e-320]}, "seconds"),
        ({"seconds": [1e308] * 7}, "seconds"),
        ({"counts": {"operations": 10**400}}, "counts"),
        ({"ratio": {"to": "x", "median": 0.5, "spread": HALF, "verdict": "slower"}}, "verdict"),
        ({"spread": {"low": 0.1, "high": 0.2, "coverage": 99}}, "coverage"),
    ],
)  # fmt: skip
def test_a_case_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        bench.read(written(tmp_path, **changes))


def test_a_case_that_stands_twice_is_refused(tmp_path: Path) -> None:
    given = result()
    content = given.model_dump(mode="json") | {"cases": [given.cases[0].model_dump(mode="json")] * 2}
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="twice"):
        bench.read(tmp_path / "b.json")


def test_what_a_terminal_would_obey_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, name="a\x1b[31m\x00\ud800b")
    assert bench.read(path).cases[0].name == "a?[31m??b"


def test_round_trip(tmp_path: Path) -> None:
    made = result(scaled=("batch 128 -> 8",), complete=False)
    bench.write(tmp_path / "bench.json", made)
    assert bench.read(tmp_path / "bench.json") == made
    assert made == result(scaled=("batch 128 -> 8",), complete=False)  # nothing in it is drawn anew


def test_keys_of_a_later_version_are_passed_over(tmp_path: Path, content: Content) -> None:
    content["weather"] = content["cases"][0]["moon"] = "full"
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content))
    assert bench.read(path) == result()


DEEP = b"[" * 200_000 + b"]" * 200_000
FILES = {
    "empty": b"",
    "text": b"REM is faster",
    "not text": b"\xff\xfe\x00\x01",
    "cut off": b'{"format": 1, "cases": [',
    "deep": DEEP,
    "deep inside": b'{"format": 1, "provenance": ' + DEEP + b"}",
    "list": b"[]",
    "null": b"null",
    "number": b"1e999",
    "other json": b'{"mean": 0.3}',
    "a long number": b"9" * 10_000,
}


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(FILES[name])
    assert "not a bench.json of remctl" in refused(path)


@pytest.mark.parametrize("given", [2, 0, "1", None, [1] * 1000, {"a": 1}])
def test_another_format_is_named(tmp_path: Path, content: Content, given: object) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content | {"format": given}))
    assert "written by another version of remctl" in refused(path)


def first_case(change: Content) -> Callable[[Content], None]:
    return lambda content: content["cases"][0].update(change)


CHANGES: dict[str, tuple[Callable[[Content], object], str]] = {
    "no device": (lambda c: c.pop("device"), "device: Field required"),
    "no format": (lambda c: c.pop("format"), "format: Field required"),
    "no median": (lambda c: c["cases"][3].pop("median"), "cases.3.median: Field required"),
    "NaN": (first_case({"median": math.nan}), "cases.0.median"),
    "infinite": (first_case({"per_epoch_s": math.inf}), "cases.0.per_epoch_s"),
    "no rounds": (first_case({"seconds": []}), "cases.0.seconds"),
    "no time": (first_case({"median": 0.0}), "cases.0.median"),
    "time runs backwards": (first_case({"seconds": [1.0, -1.0]}), "cases.0.seconds.1"),
    "spread down to 0": (first_case({"spread": {"low": 0.0, "high": 1.0, "coverage": 1.0}}), "no interval of times"),
    "spread turned round": (first_case({"spread": {"low": 2.0, "high": 1.0, "coverage": 1.0}}), "no interval of times"),
    "a text": (first_case({"batch_size": "many"}), "cases.0.batch_size"),
    "a list": (lambda c: c.update(cases={}), "cases"),
    "verdict": (lambda c: c["cases"][1]["ratio"].update(verdict="better"), "cases.1.ratio.verdict"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_damaged_benchmark_is_refused_by_the_name_of_the_key(tmp_path: Path, content: Content, name: str) -> None:
    change, said = CHANGES[name]
    change(content)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content))
    assert said in refused(path)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), bench.MAX_BYTES + 1)
    refused(path)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_no_file_comes_with_what_makes_one(tmp_path: Path, name: str) -> None:
    assert "remctl bench --out" in refused(tmp_path / name)


def test_a_suite_and_the_code_that_was_measured() -> None:
    made = result()
    assert {c.suite for c in made.of("paper")} == {"paper"}
    assert made.code == "remctl 0.1.0+g0123456789ab"
    assert result(provenance={"git": {"commit": "f" * 40, "dirty": True}}).code.endswith("+gffffffffffff.changed")
    assert result(provenance={}).code == "remctl 0.1.0"


def test_keys_tell_cases_apart() -> None:
    cases = result().cases
    assert len({c.key for c in cases}) == len(cases)


def test_its_folder_is_made_when_there_is_something_to_write(tmp_path: Path) -> None:
    paths = _targets(tmp_path / "new", tmp_path / "other" / "b.json")
    assert list(tmp_path.iterdir()) == []  # a benchmark that is interrupted at once leaves nothing
    for path in paths:
        bench.write(path, result())
        assert path.is_file()
