"""The files that come with remctl: found by name from any folder, the user's own first, copied, and in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from remctl import shipped
from remctl.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("kind", "name"), [("ablations", "pop"), ("reports", "paper"), ("slurm", "default")])
def test_a_name_means_your_own_file_before_the_shipped_one(kind: shipped.Kind, name: str) -> None:
    there = shipped.folder(kind) / f"{name}.yaml"
    assert shipped.find(kind, name) == there
    own = Path(kind, f"{name}.yaml")
    own.parent.mkdir()
    own.touch()
    assert shipped.find(kind, name) == shipped.find(kind, str(own)) == own
    assert shipped.find(kind, f"remctl:{name}") == there
    Path("mine").touch()
    assert shipped.find(kind, "mine") == Path("mine")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("accident", "no ablation spec 'accident': did you mean accidents?"),
        ("remctl:accident", "no ablation spec 'remctl:accident': did you mean accidents?"),
        (
            "ablations/pop.yaml",
            "no ablation spec 'ablations/pop.yaml' (there is no such file): did you mean pop, which",
        ),
        ("none.yaml", "no ablation spec 'none.yaml' (there is no such file): known: "),
        (".", ". is a folder, no ablation spec: known: "),
        ("/", "/ is a folder, no ablation spec: known: "),
        ("xyz", "no ablation spec 'xyz': known: accidents, action_inputs"),
    ],
)
def test_an_unknown_name_is_refused_with_near_ones(given: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        shipped.find("ablations", given)
    assert str(caught.value).startswith(says)


def test_a_shipped_file_is_recorded_by_name_and_any_other_by_its_path() -> None:
    assert shipped.reference("ablations", shipped.find("ablations", "pop")) == "remctl:pop"
    own = Path("ablations", "pop.yaml")
    own.parent.mkdir()
    own.touch()
    assert shipped.reference("ablations", own) == str(own.absolute())


def test_copies_are_written_once_and_replaced_only_on_request() -> None:
    written, kept = shipped.copy_into(Path("lab"))
    copy = Path("lab/ablations/pop.yaml")
    assert copy in written
    assert len(written) == len({*written}) == sum(1 for kind in shipped.KINDS for p in shipped.folder(kind).glob("*.*"))
    assert not kept
    assert copy.read_bytes() == shipped.find("ablations", "pop").read_bytes()
    copy.write_text("mine")
    assert shipped.copy_into(Path("lab")) == ([], [copy])
    assert copy.read_text() == "mine"
    assert shipped.copy_into(Path("lab"), overwrite=True) == ([copy], [])
    assert copy.read_bytes() == shipped.find("ablations", "pop").read_bytes()


def test_the_wheel_holds_every_file_where_the_package_looks_for_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for kind in shipped.KINDS:
        for source in (ROOT / kind).glob("*.*"):
            assert held.pop(f"remctl/data/{kind}/{source.name}") == source.read_bytes()
    for source in (ROOT / "remctl").rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            assert held.pop(str(source.relative_to(ROOT))) == source.read_bytes()
    assert all(".dist-info/" in name for name in held), held.keys()
