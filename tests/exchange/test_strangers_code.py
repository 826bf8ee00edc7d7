"""A stranger's bundle runs no code: no module that it brings along is imported, whatever its configuration names."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remctl.__main__ import main
from remctl.runs.imported import record_of
from remctl.runs.layout import RunFolder
from tests.exchange.bundles import reconfigure
from tests.exchange.conftest import refused
from tests.tiny import WALK

EVIL = "import pathlib\npathlib.Path('ran').touch()\n"
GAME = EVIL + WALK
VERBS: dict[str, tuple[object, ...]] = {
    "eval": ("eval", "bundle"),
    "eval from within": ("eval", "."),
    "inspect": ("inspect", "bundle", "--out", "figures"),
    "train --from": ("train", "--from", "bundle/config.yaml", "--out", "again"),
    "eval of what was imported": ("eval", "run"),
    "train --from of what was imported": ("train", "--from", "run/config.yaml", "--out", "again"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("bundle", "evil", "run", "installed_game", "evidence"):
            del sys.modules[name]


def plant(folder: Path, text: str = EVIL) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "evil.py").write_text(text)


@pytest.mark.parametrize(
    ("verb", "module"), [*((verb, "bundle.evil") for verb in VERBS), ("eval", "evil"), ("eval", "run.evil")]
)
def test_a_module_that_is_not_installed_is_not_looked_for(
    cli: Callable, exported: Path, verb: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(exported, game=f"gym:{module}:Walk-v0")
    assert cli("import", exported, "--out", "run").status == 0
    for folder in (exported, Path("run"), Path.cwd()):
        plant(folder)
    if verb == "eval from within":
        monkeypatch.chdir(exported)
    refused(cli(*VERBS[verb]), f"names the module '{module}', which is not installed", "set PYTHONPATH")
    assert not list(exported.parent.rglob("ran"))


@pytest.mark.parametrize(
    ("verb", "module"),
    [
        ("eval", "bundle.evil"),
        ("train --from", "bundle.evil"),
        ("eval of what was imported", "bundle.evil"),
        ("train --from of what was imported", "run.evil"),
    ],
)
def test_one_in_the_bundle_is_not_imported_though_the_path_leads_there(
    cli: Callable, exported: Path, verb: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconfigure(exported, game=f"gym:{module}:Walk-v0")
    assert cli("import", exported, "--out", "run").status == 0
    for folder in (exported, Path("run")):
        plant(folder)
    monkeypatch.syspath_prepend(str(exported.parent))
    refused(cli(*VERBS[verb]), f"names the module '{module}', which would be imported from", "no code of its own")
    assert not Path("ran").exists()


@pytest.mark.parametrize("has_init", [True, False])
def test_a_package_around_a_bundle_and_a_folder_next_to_it_are_not_imported(
    cli: Callable, exported: Path, has_init: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("evidence").mkdir()
    if has_init:
        Path("evidence/__init__.py").touch()
    shutil.copytree(exported, "evidence/it")
    plant(Path("evidence/it"))
    plant(Path("run"))
    monkeypatch.syspath_prepend(str(exported.parent))
    for module in ("evidence.it.evil", "run.evil"):
        reconfigure(Path("evidence/it"), game=f"gym:{module}:Walk-v0")
        refused(cli("eval", "evidence/it"), "no code of its own")
    assert not Path("ran").exists()


def test_what_the_user_installed_is_imported(
    cli: Callable, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/installed_game.py").write_text(GAME)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    reconfigure(exported, game="gym:installed_game:Walk-v0")
    refused(cli("eval", exported), "installed_game:Walk-v0 has actions Box")
    assert Path("ran").exists()


@pytest.mark.parametrize("name", ["", ".evil", "sys"])
def test_what_names_no_module_gets_one_line(cli: Callable, exported: Path, name: str) -> None:
    reconfigure(exported, game=f"gym:{name}:Walk-v0")
    refused(cli("eval", exported), "Walk-v0" if not name else "which is not installed")


def test_the_working_folder_is_no_place_for_modules_of_libraries(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a library's optional ones, which a folder of their name would replace."""
    monkeypatch.setattr(sys, "path", [str(exported), *sys.path])
    monkeypatch.setattr(sys, "argv", ["remctl", "--version"])
    monkeypatch.chdir(exported)
    monkeypatch.setattr("signal.getsignal", lambda _: None)
    with pytest.raises(SystemExit):
        main()
    assert str(exported) not in sys.path


def test_an_imported_run_says_where_its_bundle_was(cli: Callable, exported: Path) -> None:
    assert cli("import", exported, "--out", "run").status == 0
    assert Path(record_of(RunFolder(Path("run")))["file"]) == exported.resolve()
