"""What every test gets."""

import os

import pytest

# Before torch is imported anywhere, as the command line has it: threads that spin while they wait slow each other down.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU")
