"""What tests of whole runs share."""

from collections.abc import Iterator

import pytest
import torch

from tests.train.support import outcome, tiny, train


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, tiny())
    return outcome(folder)


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    """For a test that changes the number of torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
