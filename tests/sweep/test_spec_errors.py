"""What a wrong spec says: one line with file, line, key, what was given and the fix; whatever stands in the file."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remctl.config import keys
from remctl.errors import UserError
from remctl.sweep.spec import read_spec, wanted_runs

TEXT = """\
name: tiny
question: Does it work?
control: rem
variants:
  - rem
  - name: own
    overrides:
      imagination.horizon: 5
games: [Pong, Catch]
seeds: 2
preset: paper
"""
END = "preset: paper"
OWN = "imagination.horizon: 5"
GRID = f"{END}\ngrid:\n  imagination.horizon:\n"

BAD = [
    # old, new, line, message
    ("name: tiny", "title: tiny", 1, "title: unknown key 'title': known: variants, games, seeds, name, question"),
    ("seeds: 2", "seed: 2", 10, "seed: unknown key 'seed': did you mean seeds?"),
    ("seeds: 2\n", "", 1, "spec: missing key 'seeds': add it, for example 'seeds: 5'"),
    ("name: tiny", "nmae: tiny\ncolour: red", 1, "'nmae' (line 1): did you mean name?; unknown key 'colour' (line 2): k"),
    ("control: rem\nvariants:", "variant:", 3, "did you mean variants?"),
    ("games: [Pong, Catch]\nseeds: 2\n", "", 1, "add it, for example 'games: ablation_subset'; missing key 's"),
    ("- name: own", "- nmae: own\n    lable: x", 6, "did you mean name?; unknown key 'lable' (line 7): did you"),
    (OWN, "imagination: {horizn: 5, burn_in: 3}", 8, "unknown key 'imagination.burn_in': did you mean imagination.b"),
    ("control: rem\nvariants:\n  - rem\n", "variants:\n", 1, "missing key 'control', as no variant is named rem: add one"),
    ("name: tiny", "name:", 1, "name: given null; allowed: text of 1 to 500 characters"),
    ("name: tiny", "name: 3", 1, "name: given 3; allowed: text"),
    ("name: tiny", "name: a/b", 1, "name: 'a/b' cannot name a folder: give a name without '/'"),
    ("name: tiny", "name: .hidden", 1, "cannot name a folder"),
    ("name: tiny", f"name: {'x' * 256}", 1, "is longer than 255 bytes, as no folder can be: shorten it"),
    ("name: tiny", f"name: {'x' * 501}", 1, "allowed: text of 1 to 500 characters"),
    ("name: tiny", 'name: "a\\u202eb"', 1, "allowed: text of 1 to 500 characters that can be printed"),
    ("Does it work?", "''", 2, "question: given ''; allowed: text"),
    ("control: rem", "control: no_pop", 3, "control: given 'no_pop'; allowed: one of rem, own"),
    ("- rem", "- rme", 5, "variants: unknown variant 'rme': did you mean rem?"),
    ("- rem", "- 3", 5, "variants: given 3; allowed: text"),
    ("- rem", "- [rem]", 5, "variants: given ['rem']; allowed: text"),
    ("- name: own", "- nmae: own", 6, "nmae: unknown key 'nmae': did you mean name?"),
    ("- name: own", "- label: own", 6, "variants: missing key 'name': add it, for example 'name: small'"),
    ("- name: own", "- name: own\n    base: nopop", 7, "base: unknown variant 'nopop': did you mean no_pop?"),
    ("- name: own", "- name: no_pop\n    base: rem", 7, "base: given 'rem', but 'no_pop' is the switchboard's: choose"),
    ("- name: own", "- name: rem", 6, "variants: 'rem' is given twice, first in line 5: remove one"),
    ("- name: own", "- name: o/n", 6, "name: 'o/n' cannot name a folder"),
    ("- name: own", "- name: own\n    label: 3", 7, "label: given 3; allowed: text"),
    (OWN, "imagination.horizon: 10", 6, "variants: 'own' is the control 'rem' in every game: remove or change it"),
    (OWN, "runtime.trackers: [wandb]", 6, "'own' is the control 'rem' in every game"),
    (OWN, "imagination.horizn: 5", 8, "unknown key 'imagination.horizn': did you mean imagination.horizon"),
    (OWN, "imagination: 5", 8, "imagination is a section: set one of its keys, for example imagination.horizon"),
    (OWN, "imagination: {horizon: 5, horizn: 5}", 8, "unknown key 'imagination.horizn'"),
    (OWN, "imagination.horizon: five", 8, "imagination.horizon: given 'five'; allowed: integer (variant 'own', Pong)"),
    (OWN, "imagination:\n        horizon: 5\n        burn_in_frames: x", 10, "imagination.burn_in_frames: given 'x'; allowed"),
    (OWN, "controller.conv_channels:\n        - x", 8, "controller.conv_channels.0: given 'x'; allowed: integer"),
    (OWN, f"{OWN}\n      imagination: {{horizon: 6}}", 9, "imagination.horizon: 'imagination.horizon' is given twice"),
    (OWN, f"{OWN}\n      {OWN}", 9, "imagination.horizon: 'imagination.horizon' is given twice, first in line 8"),
    (OWN, "imagination.horizon: 2", 8, "imagination.horizon 2 leaves no step that trains C: set it to at least 3"),
    (OWN, "tokenizer.embed_dim: 128", 8, "differ: make them equal, or set"),
    (OWN, "controller.training.start_after_epoch: 1", 6, "training must start in the order tokenizer, world_model"),
    (OWN, "seed: 3", 8, "seed: not an override: set it with 'seeds' of the spec"),
    (OWN, "variant: no_pop", 8, "variant: not an override: set it with 'variants' of the spec"),
    ("    overrides:\n      " + OWN, "    overrides:", 7, "overrides: given null; allowed: keys with values"),
    ("    overrides:\n      " + OWN, "    overrides: [a]", 7, "overrides: given ['a']; allowed: keys with values"),
    ("[Pong, Catch]", "[Pong, Ctach]", 9, "games: unknown game 'Ctach': did you mean Catch"),
    ("[Pong, Catch]", "[Pong,\n  Ctach]", 10, "games: unknown game 'Ctach': did you mean Catch"),
    ("[Pong, Catch]", "[Pong, Pong]", 9, "games: 'Pong' is given twice, first in line 9: remove one"),
    ("[Pong, Catch]", "['gym:a/b', 'gym:a_b']", 9, "games: 'gym_a_b' is given twice"),
    ("[Pong, Catch]", f"['gym:{'a' * 300}']", 9, "is longer than 255 bytes"),
    ("[Pong, Catch]", "[]", 9, "games: given []; allowed: a list of at least one"),
    ("[Pong, Catch]", "[1]", 9, "games: given 1; allowed: text"),
    ("[Pong, Catch]", "Catch", 9, "games: given 'Catch'; allowed: atari_100k, ablation_subset, or a list of games"),
    ("[Pong, Catch]", "{Pong: 1}", 9, "games: given {'Pong': 1}; allowed: a list of at least one"),
    ("seeds: 2", "seeds: 0", 10, "seeds: given 0; allowed: a count of 1 to 10000, or a list of seeds such as [0, 1, 2]"),
    ("seeds: 2", "seeds: -1", 10, "seeds: given -1; allowed: a count"),
    ("seeds: 2", "seeds: true", 10, "seeds: given true; allowed: a count"),
    ("seeds: 2", "seeds: 2.5", 10, "seeds: given 2.5; allowed: a count"),
    ("seeds: 2", "seeds: 1000000000000", 10, "allowed: a count of 1 to 10000"),
    ("seeds: 2", f"seeds: {'9' * 5000}", 10, "seeds: not a value: "),
    ("seeds: 2", "seeds: []", 10, "seeds: given []; allowed: a list of at least one"),
    ("seeds: 2", "seeds: [0, -1]", 10, "seeds: given -1; allowed: a whole number from 0 to 2147483647"),
    ("seeds: 2", "seeds: [0, 2147483648]", 10, "seeds: given 2147483648; allowed: a whole number"),
    ("seeds: 2", "seeds:\n- 0\n- x", 12, "seeds: given 'x'; allowed: a whole number"),
    ("seeds: 2", "seeds:\n- 3\n- 3", 12, "seeds: '3' is given twice, first in line 11: remove one"),
    ("seeds: 2", "seeds: 2\nseeds: 3", 11, "seeds: 'seeds' is given twice, first in line 10: remove one"),
    ("seeds: 2", "seeds: 2\n? [a]\n: 3", 11, "a key is not plain text"),
    ("seeds: 2", "seeds: 5000", 4, "variants: asks for 20,000 runs; allowed: at most 10,000: shorten a list"),
    (END, "preset: papper", 11, "preset: unknown preset 'papper': did you mean paper"),
    (END, f"{END}\noverrides: {{world_model.num_layers: 0}}", 12, "world_model.num_layers: given 0; allowed: greater"),
    (END, f"{END}\noverrides:\n  tokenizer: {{grid_size: 3}}", 13, "tokenizer.grid_size 3 is not environment.frame_size 64"),
    (END, f"{END}\ngrid: 3", 12, "grid: given 3; allowed: keys with values"),
    (END, f"{END}\ngrid: {{imagination.horizon: 5}}", 12, "imagination.horizon: given 5; allowed: a list of at least one"),
    (END, f"{END}\ngrid: {{imagination.horizn: [5]}}", 12, "unknown key 'imagination.horizn'"),
    (END, f"{END}\ngrid: {{runtime.trackers: [[], [wandb]]}}", 12, "runtime.trackers: no result depends on it"),
    (END, f"{GRID}    - 3\n    - x", 15, "imagination.horizon: given 'x'; allowed: integer (variant 'rem+imagin"),
    (END, f"{GRID}    - 3\n    - 2", 15, "imagination.horizon 2 leaves no step that trains C"),
    (END, f"{GRID}    - 3\n    - 3", 15, "imagination.horizon: '3' is given twice, first in line 14: remove one"),
    (END, f"{GRID}    [3, 4]", 3, "control: given 'rem'; allowed: one of rem+imagination.horizon=3, rem+imagination.horizon=4"),
    (END, f"{GRID}    - 5\n    - 10", 15, "'own+imagination.horizon=10' is the control 'rem' in every game"),
    (END, f"{GRID}    {list(range(3, 2600))}", 12, "grid: asks for 20,776 runs; allowed: at most 10,000: shorten a list"),
    (END, "preset: [paper", 12, "not YAML: "),
    (END, "preset: 'paper", 12, "not YAML: found unexpected end of stream"),
    (END, "\tpreset: paper", 11, "not YAML: "),
    (END, "preset: &a paper", 11, "not YAML: anchors (&), aliases (*) and tags (!) are not read here: write the value out"),
    (END, "preset: *a", 11, "not YAML: anchors"),
    (END, "preset: !!python/object/apply:os.getcwd []", 11, "not YAML: anchors"),
    (END, "preset: !!bool paper", 11, "not YAML: anchors"),
    (END, f"{END}\n---\nname: two", 12, "not YAML: but found another document"),
    (END, "preset: pa\x00per", 11, "not YAML: U+0000 is not allowed: remove it"),
]  # fmt: skip


def explained(message: str, file: Path) -> None:
    assert re.match(rf"{re.escape(str(file))}:(\d+:)? \S", message)
    assert message.isprintable()
    assert len(message) < 1500


@pytest.mark.parametrize(("old", "new", "line", "message"), BAD, ids=[f"{b[2]} {b[3][:40]}" for b in BAD])
def test_a_mistake_is_one_line_with_file_line_key_and_fix(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in TEXT
    file = tmp_path / "spec.yaml"
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_spec(file)
    explained(str(caught.value), file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert message in str(caught.value)


def test_the_text_without_a_mistake_is_a_spec(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(TEXT)
    assert len(wanted_runs(read_spec(file))) == 8
    file.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert len(wanted_runs(read_spec(file))) == 8


FILES = [
    (b"", ":1: spec: given null; allowed: the keys variants, games, seeds"),
    (b"- a\n", ":1: spec: given ['a']; allowed: the keys variants, games, seeds"),
    (b"name: a\nquestion: \xff\n", ":2: not YAML: not UTF-8: save it as UTF-8"),
    (b"#" * 100_001, ": larger than 100 kB: give a shorter YAML file"),
    (b"[" * 90_000, ": nested too deeply: fix the brackets or the indentation"),
    (b"{a: " * 20_000, ": nested too deeply"),
    (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", ":1: not YAML: anchors"),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=[m for _, m in FILES])
def test_a_file_that_is_no_spec(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_spec(file)
    explained(str(caught.value), file)
    assert str(caught.value).startswith(f"{file}{message}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory: give a readable YAML file"):
        read_spec(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="Is a directory"):
        read_spec(tmp_path)
    with pytest.raises(UserError, match="larger than 100 kB"):
        read_spec(Path("/dev/zero"))


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("name: 3\nvariants: [rme]\ngames: []\nseeds: [1, 1, 2, 2, -1]\noverrides: {a: 1}\n")
    with pytest.raises(UserError) as refused:
        read_spec(file)
    for line, part in [(1, "name: given 3"), (2, "variants: unknown"), (3, "games: given []"), (4, "seeds: given -1")]:
        assert f"{file}:{line}: {part}" in str(refused.value)
    assert "unknown key 'a'" in str(refused.value)
    file.write_text("variants: [rem, rem, no_pop, no_pop]\ngames: [Pong, Pong, Catch, Catch]\nseeds: [1]\n")
    with pytest.raises(UserError) as refused:
        read_spec(file)
    for name in ("variants: 'rem'", "'no_pop'", "games: 'Pong'", "'Catch'"):
        assert f"{name} is given twice" in str(refused.value)
    assert "\n" not in str(refused.value)
    file.write_text("variants: [rem]\ngames: [Pong]\nseeds: [1, 1, 2, 2]\n")
    with pytest.raises(UserError, match="'1' is given twice.*'2' is given twice"):
        read_spec(file)


@pytest.mark.parametrize(("key", "place"), [("seed", "'seeds'"), ("game", "'games'"), ("variant", "'variants'")])
def test_what_a_spec_lists_is_not_set(key: str, place: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("variants: [rem]\ngames: [Pong]\nseeds: 2\n")
    with pytest.raises(UserError, match=f"^--set {key}: not an override: set it with {place} of the spec$"):
        read_spec(file, [f"{key}=3"])
    with pytest.raises(UserError, match="or give --preset"):
        read_spec(file, ["preset=quick"])


# --- whatever stands in the file

fuzz = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["rem", "Pong", "paper"])
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from([*keys(), "name", "base"]), v, max_size=3),
    max_leaves=6,
)


def accept_or_explain(file: Path) -> None:
    try:
        spec = read_spec(file)
    except UserError as error:
        explained(str(error), file)
    else:
        names = {v.name for v in spec.variants}
        assert spec.control in names
        assert len(wanted_runs(spec)) == len(names) * len(spec.games) * len(spec.seeds)


@fuzz
@given(key=st.sampled_from([*yaml.safe_load(TEXT), "overrides", "grid"]), value=VALUES)
def test_any_value_of_any_key(key: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    content = yaml.safe_load(TEXT) | {key: value}
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    accept_or_explain(file)


@fuzz
@given(
    seed=st.integers(0, 2**32),
    junk=st.sampled_from(["", ": ", "- ", "\t", "{", "]", "&a ", "*a", "!!set ", "\x85", "'"]),
)
def test_a_damaged_spec(seed: int, junk: str, tmp_path: Path) -> None:
    at = random.Random(seed).randrange(len(TEXT))
    file = tmp_path / "spec.yaml"
    file.write_text(TEXT[:at] + junk + TEXT[at + 3 :], encoding="utf-8")
    accept_or_explain(file)


def test_a_key_that_cannot_be_printed_is_named_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("a\N{ZERO WIDTH SPACE}b: 1\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_spec(file)
    explained(str(refused.value), file)
    assert r"'a\u200bb'" in str(refused.value)


@fuzz
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    accept_or_explain(file)
