"""What tests of whole runs share."""

import pytest

from tests.train.support import outcome, tiny, train


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, tiny())
    return outcome(folder)
