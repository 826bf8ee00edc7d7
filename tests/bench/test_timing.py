"""Timing: turns, repeats, synchronisation, memory; and that a difference inside the noise is not called one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from remctl.bench import timing
from remctl.bench.counting import Counter
from remctl.bench.timing import interleaved, peak_memory_mb, repeats_for, seconds_of

CPU = torch.device("cpu")


def nothing() -> None:
    pass


def test_cases_take_turns_and_change_their_order() -> None:
    order: list[str] = []

    def work(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    works = {name: work(name) for name in "abc"}
    seconds: dict[str, list[float]] = {}
    interleaved(works, dict.fromkeys("abc", 1), 4, CPU, nothing, seconds)
    assert "".join(order) == "abccbaabccba"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_repeats_within_a_round_are_of_one_case_and_the_time_is_that_of_one_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    runs: list[int] = []
    assert seconds_of(lambda: runs.append(1), CPU, repeats=4) == 0.25
    assert len(runs) == 4


def test_the_device_is_waited_for_before_the_clock_starts_and_before_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(timing, "synchronize", lambda device: events.append("synchronize"))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: events.append("clock") or 0.0)
    seconds_of(lambda: events.append("work"), CPU, repeats=2)
    assert events == ["synchronize", "clock", "work", "work", "synchronize", "clock"]


def test_short_work_is_repeated_and_long_work_is_not() -> None:
    assert repeats_for(1e-5) == timing.MAX_REPEATS
    assert repeats_for(0.02) == 5
    assert repeats_for(10.0) == 1
    assert repeats_for(0.0) == timing.MAX_REPEATS


def test_a_signal_is_looked_at_before_every_measurement() -> None:
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt

    done: list[int] = []
    seconds: dict[str, list[float]] = {}
    with pytest.raises(KeyboardInterrupt):
        interleaved({"a": lambda: done.append(1)}, {"a": 1}, 10, CPU, check, seconds)
    assert len(done) == len(seconds["a"]) == 2, "what was measured until then is there"


def test_peak_memory_sees_what_is_taken_and_given_back() -> None:
    def work() -> None:
        np.ones(50_000_000, dtype=np.uint8).sum()

    before = peak_memory_mb(nothing, CPU)
    if before is None:
        pytest.skip("this system does not tell its peak memory")
    during = peak_memory_mb(work, CPU)
    after = peak_memory_mb(nothing, CPU)
    assert during is not None
    assert after is not None
    assert 45 < during - before < 80
    assert after < during - 40, "the peak of one piece of work is not that of the next"


def test_views_and_allocations_are_not_operations_and_copies_are_apart() -> None:
    x = torch.ones(4, 6)
    with Counter() as counter:
        x.view(6, 4).transpose(0, 1).detach()[1:]
        torch.empty(3)
        y = x @ x.T
        y.relu()
        x.T.contiguous()
        x.to(torch.float64)
    found = counter.counts(None)
    assert (found.operations, found.copies, found.flops) == (2, 2, 2 * 4 * 6 * 4)
    assert (found.model_operations, found.model_calls) == (0, 0)
    with Counter() as counter, counter.inside():
        x @ x.T
    assert counter.counts(None).model_flops == 2 * 4 * 6 * 4


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_counts_as_its_two_products(masked: bool) -> None:
    q, k = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8)
    mask = torch.ones(5, 7, dtype=torch.bool) if masked else None
    with Counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(q, k, k, attn_mask=mask)
    assert counter.counts(None).flops == 2 * (2 * 2 * 3 * 5 * 7 * 8)
