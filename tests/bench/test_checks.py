"""Before anything is timed, outputs are compared with the reference; here with faults in the model."""

import pytest
import torch

from remctl.bench.checks import check_agent, check_counts
from remctl.bench.counting import Counter
from remctl.bench.measure import Measured, check_once, make_workload
from remctl.config import build
from remctl.errors import MachineError
from remctl.rem import retnet, world_model
from remctl.rem.retention import RetentionTables
from remctl.train.build import build_agent
from tests.bench.test_cost import IRIS, SMALL, TOKEN_BY_TOKEN

CPU = torch.device("cpu")
VARIANTS = {"REM": {}, "No POP": TOKEN_BY_TOKEN, "IRIS": IRIS}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_a_right_model_passes(overrides: dict[str, object], precision: str) -> None:
    workload = make_workload(build(SMALL | overrides | {"runtime.precision": precision}), CPU)
    checks = check_agent("it", workload.agent)
    assert len(checks) == 3
    assert [c.error <= 1e-12 for c in checks] == [True, True, False]
    assert all(c.tolerance == 0 == c.error for c in check_counts("it", workload))


def test_the_sign_that_rounding_flips_at_an_empty_state_is_no_error() -> None:
    sizes = {"world_model.num_layers": 10, "tokenizer.grid_size": 4, "runtime.precision": "bf16"}
    rounding = check_agent("it", build_agent(build(sizes), 6, CPU))[-1]
    assert 0 < rounding.error < rounding.tolerance / 2


def test_a_state_that_decays_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_workload(build(SMALL), CPU).agent
    right = retnet.block_states
    monkeypatch.setattr(agent.world_model.sequence_model, "block_states", lambda *args: 0.999 * right(*args))
    with pytest.raises(MachineError, match="nothing was timed"):
        check_agent("REM", agent)


def test_a_last_layer_that_leaves_out_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = retnet.RetNet._pruned_layer

    def wrong(self: retnet.RetNet, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        x, state = right(self, *args)  # type: ignore[arg-type]
        return x.roll(1, dims=1), state

    monkeypatch.setattr(retnet.RetNet, "_pruned_layer", wrong)
    agent = make_workload(build(SMALL), CPU).agent
    with pytest.raises(MachineError, match="token by token"):
        check_agent("REM", agent)


def test_tables_in_bfloat16_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_workload(build(SMALL | {"runtime.precision": "bf16"}), CPU).agent
    right = RetentionTables._get

    def rounded(self: RetentionTables, key: tuple, like: torch.Tensor, make: object) -> torch.Tensor:
        table = right(self, key, like, make)  # type: ignore[arg-type]
        is_rounded = table.dtype == torch.float32
        return 1.3 * table.bfloat16().float() if is_rounded else table

    monkeypatch.setattr(RetentionTables, "_get", rounded)
    with pytest.raises(MachineError, match="bf16 = float64"):
        check_agent("REM", agent)


def test_an_operation_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = make_workload(build(SMALL), CPU)
    right = retnet.retain
    monkeypatch.setattr(retnet, "retain", lambda *args: right(*args) + 0.0)
    with pytest.raises(MachineError, match="operations of imagination = cost model"):
        check_counts("REM", workload)


def test_counts_are_checked_without_look_ups_that_spare_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_model, "LEAST_SAVED", float("-inf"))
    workload = make_workload(build(SMALL), CPU)
    assert all(c.error == 0 for c in check_counts("REM", workload))
    assert workload.agent.world_model.may_look_up


def test_one_model_is_checked_once_whatever_the_batch_and_the_horizon() -> None:
    found = Measured()
    for changes in ({}, {"imagination.horizon": 7}, {"controller.training.batch_size": 2}):
        check_once("it", make_workload(build(SMALL | changes), CPU).agent, found)
    assert len(found.checks) == 3
    check_once("it", make_workload(build(SMALL | {"world_model.num_layers": 3}), CPU).agent, found)
    assert len(found.checks) == 6


def test_counting_leaves_no_hook_behind() -> None:
    workload = make_workload(build(SMALL), CPU)
    check_counts("it", workload)
    assert not workload.agent.world_model.sequence_model._forward_pre_hooks
    with Counter() as counter:
        workload.imagine()
    assert counter.counts(None).model_calls == 0
