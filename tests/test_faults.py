"""The faults that `make faults` plants are still in the code."""

import os
from pathlib import Path

import pytest

import remctl
from tests.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}: {fault.old[:40]}")
def test_a_fault_finds_its_place(fault: Fault) -> None:
    assert (Path(remctl.__file__).parent / fault.file).read_text().count(fault.old) == 1
    files = {name.partition("::")[0] for name in fault.tests.split() if name.startswith("tests/")}
    assert all(map(os.path.exists, files))
