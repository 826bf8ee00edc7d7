"""Paths that the documents name exist, and so do the names that docs/architecture.md gives."""

import re
from pathlib import Path

import pytest

from tests.test_layers import LAYERS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_architecture_is_that_of_the_code() -> None:
    named = re.findall(r"`([A-Za-z_./]+)`", (ROOT / "docs" / "architecture.md").read_text())
    assert not [path for path in named if "/" in path and not (ROOT / path).exists()]
    code = "".join(p.read_text() for p in [*ROOT.glob("remctl/**/*.py"), ROOT / "tests/test_isolation.py"])
    names = [name for name in named if re.fullmatch(r"[A-Z]\w+|build_agent", name)]
    assert names
    assert not [name for name in names if not re.search(rf"(class|def|^) ?{name}\b", code, re.MULTILINE)]


def test_the_layers_are_those_that_are_enforced() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text().split("## How POP")[0]
    written = [tuple(group.split()) for group in re.findall(r"`([a-z_ ]+)`(?: <|\n)", page)]
    assert written == list(LAYERS[:-1])  # all but __main__
