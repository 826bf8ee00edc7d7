"""Where the module of `gym:MODULE:ID` is searched for.

The module of one's own configuration may lie in the working folder, which is searched after all others. A stranger's
configuration, such as that of a bundle, must not bring its own code: there only what the user installed, or put on
PYTHONPATH, is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path

from remctl.errors import Interrupted, UserError, one_line
from remctl.games import GYM_PREFIX, kind


def module_of(env_id: str) -> str:
    """Return MODULE of `MODULE:ID`; empty without one."""
    return env_id.rpartition(":")[0]


def search_working_folder(env_id: str) -> None:
    """Find the module of an environment in the working folder too, unless it is imported already. Not under `python -P`."""
    module = module_of(env_id)
    if not module or module in sys.modules or sys.flags.safe_path:
        return
    with suppress(OSError):  # the working folder may be gone
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)


def import_installed(game: str, *folders: Path) -> None:
    """Import the module of a game that the configuration in `folders` names, so that nobody searches for it any more.

    Raises UserError if it is not installed, or could be a stranger's code: in one of them, a package around one, or a folder
    without `__init__.py` in the working folder.
    """
    module = module_of(game.removeprefix(GYM_PREFIX)) if kind(game) == "gym" else ""
    if not module:
        return
    named = f"{folders[0]} names the module {module!r}, which"
    places = _places(module.partition(".")[0])
    if not places:
        raise UserError(
            f"{named} is not installed, and is not searched for in the working folder: install the package that it belongs to, "
            "or set PYTHONPATH to the folder that holds it"
        )
    for place in places:
        if _is_strange(place, [folder.resolve() for folder in folders]):
            raise UserError(
                f"{named} would be imported from {place}: a bundle runs no code of its own; move the bundle out of that "
                "folder, and install the package that the module belongs to"
            )
    try:
        importlib.import_module(module)
    except (UserError, Interrupted, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # whatever somebody else's module raises
        raise UserError(f"{named} cannot be imported: {one_line(error)}") from error


def _is_strange(place: Path, folders: list[Path]) -> bool:
    if any(place.is_relative_to(folder) or folder.is_relative_to(place) for folder in folders):
        return True
    return place.is_dir() and not (place / "__init__.py").exists() and str(place.parent) == os.getcwd()


def _places(name: str) -> list[Path]:
    """The file of a module and the folders of a package; none if it is not installed. Nothing is imported."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # no name of a module
        return []
    if spec is None:
        return []
    files = [spec.origin] if spec.has_location and spec.origin else []
    return [Path(place).resolve() for place in (*files, *(spec.submodule_search_locations or ()))]
