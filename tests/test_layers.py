"""The house: data flows one way. A file imports only from its own layer's package or from layers below."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import remctl

ROOT = Path(remctl.__file__).parent
# From the ground up. A name is a module or a package of remctl; names of one layer do not import each other.
LAYERS = (
    ("errors",),
    ("games", "variants", "interfaces", "pace", "paths", "programs", "stopping"),
    ("config",),
    ("weights", "progress", "precision", "drawing", "dropout"),
    ("rem", "iris", "envs", "runs"),
    ("replay", "shipped"),
    ("train",),
    ("dream",),
    ("runner",),
    ("bench",),
    ("explain", "doctor", "sweep", "report"),
    ("exchange",),
    ("random_play",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
WITHOUT_TORCH = (
    "errors",
    "games",
    "variants",
    "interfaces",
    "pace",
    "paths",
    "programs",
    "config",
    "weights",
    "stopping",
    "progress",
    "drawing",
    "runs",
    "shipped",
    "explain",
    "sweep",
    "report",
    "commands",
    "cli",
)
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The module or package of remctl that a file belongs to; '' for remctl itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported(path: Path, *, everywhere: bool = True) -> set[str]:
    """Dotted names of what a file imports; only at module level and outside TYPE_CHECKING if not `everywhere`."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if everywhere else tree.body
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("remctl.")} & set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_are_absolute_so_that_the_layers_see_them(path: Path) -> None:
    assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.level]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_below(path: Path) -> None:
    here = room(path)
    if here:
        assert here in LEVEL, f"{here} has no layer: give it one in LAYERS"
    for other in rooms_imported(path) - {here}:
        assert here, f"remctl/__init__.py imports {other}"
        assert LEVEL[other] < LEVEL[here], f"{path.relative_to(ROOT)} imports {other}, which is not below {here}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in WITHOUT_TORCH], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_must_start_fast_imports_no_torch_at_module_level(path: Path) -> None:
    names = imported(path, everywhere=False)
    assert not {n for n in names if n.split(".")[0] in ("torch", "gymnasium", "ale_py", "matplotlib", "scipy")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_every_public_thing_has_a_docstring(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 360
    tree = ast.parse(text)
    assert path.name in ("__init__.py", "__main__.py") or ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def public_functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Dotted name, function and docstring, with that of its class, of every public function and method of a file."""
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner in (tree, *classes):
        around = ast.get_docstring(owner) or "" if isinstance(owner, ast.ClassDef) else ""
        prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and not f"{prefix}{node.name}".startswith("_") and node.name[0] != "_":
                yield prefix + node.name, node, f"{around}\n{ast.get_docstring(node) or ''}"


def annotations(function: ast.FunctionDef) -> str:
    arguments = [a.annotation for a in (*function.args.args, *function.args.kwonlyargs) if a.annotation]
    return " ".join(ast.unparse(a) for a in (*arguments, *([function.returns] if function.returns else [])))


SHAPE = re.compile(r"\([A-Za-z0-9.]+,[^)]*\)|any shape|[Ss]calar|\{")  # (B, T, K), or what it is instead


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_docstrings_give_shapes_of_tensors_and_the_errors_that_are_raised(path: Path) -> None:
    for name, function, doc in public_functions(path):
        if re.search(r"\bTensors?\b|ndarray", annotations(function)):
            assert SHAPE.search(doc), f"{path.name}: {name} takes or returns tensors and gives no shape"
        raised = {
            node.exc.func.id
            for node in ast.walk(function)
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
        }
        if room(path) in ("cli", "commands"):
            continue  # docstrings are the verbs' help
        for error in raised & {"UserError", "MachineError", "Interrupted"}:
            assert error in doc, f"{path.name}: {name} raises {error} and does not say so"
