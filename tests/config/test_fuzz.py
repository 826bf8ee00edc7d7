"""Whatever stands in a file or on the command line: a configuration, or one line with the fix. No traceback, no hang."""

import math
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remctl.config import RunConfig, build, config_hash, from_yaml, keys, resolve, to_yaml
from remctl.config.resolve import short
from remctl.errors import UserError

KEYS = sorted(k for k in keys() if k.split(".")[0] not in ("preset", "variant", "game", "seed"))
fuzz = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**301),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(
        ["1e-3", "NO", "12:30", ".nan", ".inf", "null", "~", "", " ", "0x10", "1_000", "\x00", "\u202e", "lpips"]
    ),
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4), max_leaves=8
)

JUNK = st.sampled_from(["", ": ", "- ", "\t", "{", "]", "&a ", "*a", "!!python/object:os.system ", "\x85"])


def one_line(error: UserError) -> str:
    text = str(error)
    assert text.strip()
    assert "\n" not in text
    assert len(text) < 1500
    assert "Traceback" not in text
    return text


def accept_or_explain(make) -> None:
    try:
        config = make()
    except UserError as error:
        one_line(error)
    else:
        assert isinstance(config, RunConfig)
        numbers = [v for v in keys(config).values() if isinstance(v, float)]
        assert all(math.isfinite(v) for v in numbers)
        assert len(config_hash(config)) == 12


@fuzz
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key(key: str, value: object) -> None:
    accept_or_explain(lambda: build({key: value}))


@fuzz
@given(key=st.sampled_from(KEYS) | st.text(max_size=30), value=st.text(max_size=40))
def test_any_set(key: str, value: str) -> None:
    accept_or_explain(lambda: resolve("Pong", sets=[f"{key}={value}"]))


@fuzz
@given(
    tree=st.dictionaries(
        st.sampled_from(KEYS + ["tokenizer", "world_model", "game"]) | st.text(max_size=10), VALUES, max_size=5
    )
)
def test_any_mapping_in_a_file(tree: dict, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    accept_or_explain(lambda: resolve("Pong", file=file))


@fuzz
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_in_a_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    accept_or_explain(lambda: resolve("Pong", file=file))
    accept_or_explain(lambda: from_yaml(file))


@fuzz
@given(position=st.integers(0, 4000), junk=JUNK)
def test_a_damaged_run_configuration(position: int, junk: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    text = to_yaml(resolve("Catch", "quick"))
    at = position % len(text)
    file.write_text(text[:at] + junk + text[at + 3 :], encoding="utf-8")
    accept_or_explain(lambda: from_yaml(file))


@fuzz
@given(game=st.text(max_size=30), preset=st.text(max_size=10), variant=st.text(max_size=10))
def test_any_name(game: str, preset: str, variant: str) -> None:
    for arguments in ((game,), ("Pong", preset), ("Pong", "paper", variant)):
        accept_or_explain(lambda arguments=arguments: resolve(*arguments))


NUMBERS = [k.split(".")[1] for k in KEYS if k.startswith("world_model.") and k.count(".") == 1 and "layers" not in k]
BOMBS = {
    "a value of aliases": f"world_model:\n  num_layers: &a [{', '.join('x' * 9)}]\n"
    + "".join(
        f"  {key}: &{b} [{', '.join(['*' + a] * 9)}]\n"
        for key, a, b in zip(NUMBERS, "abcdefghijk", "bcdefghijkl", strict=False)
    ),
    "a list of aliases": f"- &a [{', '.join('x' * 9)}]\n"
    + "".join(f"- &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
    "a key of anchors": "? &a [x, x]\n: 1\n",
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
    "keys of aliases": "tokenizer: &a {channels: &b [8, 8]}\nworld_model: *a\ncontroller: {conv_channels: *b}\n",
    "nesting": "[" * 400_000,
    "nested mappings": "".join(f"{' ' * i}a:\n" for i in range(2_000)),
    "10 MB": "a: " + "x" * 10_000_000,
    "10 MB of nesting": "{a: " * 2_500_000,
    "a huge integer": "training: {num_epochs: " + "9" * 100_000 + "}",
    "a circle": "tokenizer: &a {b: *a}",
}
LIMIT_S, LIMIT_BYTES = 20, 1 << 30


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_in_bounded_time_and_memory(name: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(BOMBS[name])
    command = [sys.executable, "-m", "remctl", "config", "show", "--config", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=LIMIT_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("\n") == 1
    assert str(file.name) in done.stderr or "tokenizer" in done.stderr


class Leaf:
    """Counts how often it is quoted."""

    count = 0

    def __repr__(self) -> str:
        Leaf.count += 1
        return "x"


@pytest.mark.parametrize("wrap", [lambda v: [v] * 9, lambda v: {str(i): v for i in range(9)}, lambda v: (v,) * 9])
def test_of_a_value_only_a_bounded_part_is_looked_at(wrap: Callable[[object], object]) -> None:
    value: object = Leaf()
    for _ in range(6):  # 9^6 leaves, were they written out
        value = wrap(value)
    Leaf.count = 0
    assert len(short(value)) <= 60
    assert Leaf.count < 10_000


def test_small_values_are_quoted_whole_and_the_beginning_of_large_ones() -> None:
    for value in ([1, 2.5, "a"], {"a": [1, {}]}, "text", 10**50, 1e-6):
        assert short(value) == repr(value)
    assert [short(v) for v in (None, True)] == ["null", "true"]
    assert short("x" * 10**6) == "'" + "x" * 56 + "..."
