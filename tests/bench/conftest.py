"""What tests of benchmarks share."""

from collections.abc import Iterator

import pytest

from remctl.bench import machine


@pytest.fixture(scope="module", autouse=True)
def _quick_rates() -> Iterator[None]:
    """No test is about a machine's rates: they are measured in hundredths of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "RATE_BUDGET_S", 0.03)
        patch.setattr(machine, "MATMUL_SIZES", {"cpu": (256,)})
        yield
