"""The cost model against what is really executed: calls, operations and FLOPs, exactly, over many shapes."""

import pytest
import torch

from remctl.bench.bounds import bounds
from remctl.bench.cost import Call, Cost, CostModel, floor_s, total
from remctl.bench.counting import count
from remctl.bench.measure import make_workload
from remctl.bench.result import Device
from remctl.config import build, resolve
from remctl.train.learner import part_size
from remctl.variants import VARIANTS

SMALL = {
    "tokenizer.channels": [8],
    "tokenizer.num_codes": 24,
    "tokenizer.embed_dim": 32,
    "tokenizer.grid_size": 4,
    "tokenizer.perceptual": "none",
    "world_model.embed_dim": 32,
    "world_model.num_heads": 2,
    "world_model.ffn_dim": 48,
    "world_model.num_layers": 2,
    "controller.hidden_dim": 16,
    "controller.conv_channels": [8],
    "imagination.burn_in_frames": 5,
    "imagination.horizon": 5,
    "tokenizer.training.batch_size": 1,
    "world_model.training.batch_size": 3,
    "controller.training.batch_size": 3,
    "runtime.precision": "fp32",
}
TOKEN_BY_TOKEN = VARIANTS["no_pop"].overrides
IRIS = TOKEN_BY_TOKEN | {"world_model.architecture": "transformer", "world_model.context_blocks": 1}
CASES = {
    "REM": {},
    "REM in bf16": {"runtime.precision": "bf16"},
    "a batch in parts": {"world_model.training.batch_size": 37},
    "one rollout": {"controller.training.batch_size": 1, "world_model.training.batch_size": 1},
    "one rollout, No POP": TOKEN_BY_TOKEN | {"controller.training.batch_size": 1},
    "one rollout, IRIS": IRIS | {"controller.training.batch_size": 1},
    "one layer": {"world_model.num_layers": 1},
    "four tokens": {"tokenizer.grid_size": 2},
    "a larger batch": {"controller.training.batch_size": 7, "world_model.training.batch_size": 5},
    "no context": {"world_model.context_blocks": 1, "imagination.horizon": 4},
    "context in two chunks": {"world_model.context_blocks": 6, "imagination.horizon": 8},
    "chunks of one block": {"world_model.blocks_per_chunk": 1},
    "one chunk": {"world_model.blocks_per_chunk": 10},
    "supervised starts": {"world_model.loss_rule": "supervise_starts"},
    "text's steps": {"imagination.imagined_steps": "text", "imagination.last_step": "used"},
    "sequential states": VARIANTS["sequential_states"].overrides,
    "one prediction token": VARIANTS["shared_prediction_token"].overrides,
    "separate embeddings": VARIANTS["separate_embeddings"].overrides,
    "No POP": TOKEN_BY_TOKEN,
    "No POP in bf16": TOKEN_BY_TOKEN | {"runtime.precision": "bf16"},
    "No POP, no context": TOKEN_BY_TOKEN | {"world_model.context_blocks": 1},
    "IRIS' M": IRIS,
    "IRIS' M in bf16": IRIS | {"runtime.precision": "bf16"},
    "IRIS' M, window full": IRIS | {"world_model.sequence_blocks": 3},
    "IRIS' M without dropout": IRIS | {"world_model.dropout": 0.0},
    "IRIS' losses": IRIS | {"world_model.loss_rule": "all_positions"},
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_calls_operations_and_flops_of_imagination_are_as_predicted(overrides: dict[str, object]) -> None:
    config = build(SMALL | overrides)
    workload = make_workload(config, torch.device("cpu"))
    workload.imagine()  # builds the tables
    found = count(workload, "imagination")
    predicted = total(CostModel(config).imagination(config.controller.training.batch_size))
    assert (found.model_calls, found.model_operations, found.model_flops) == (
        predicted.calls,
        predicted.operations,
        predicted.flops,
    )
    assert found.operations > found.model_operations
    assert found.flops > found.model_flops, "C works too"


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_flops_of_a_training_step_are_as_predicted(overrides: dict[str, object]) -> None:
    config = build(SMALL | overrides)
    workload = make_workload(config, torch.device("cpu"))
    found = count(workload, "world_model")
    predicted = total(
        CostModel(config).training(config.world_model.training.batch_size, part_size(config, torch.device("cpu")))
    )
    assert (found.model_calls, found.model_flops) == (predicted.calls, predicted.flops)


def test_the_papers_call_counts() -> None:
    """Section 2.3: 2H calls instead of H(K+1); fused layer by layer they are H."""
    rem, no_pop = (resolve("Pong", variant=name).at_precision("bf16") for name in ("rem", "no_pop"))
    steps = rem.num_rewarded_steps
    assert steps == 8
    assert total(CostModel(rem).imagination(1)).calls == 1 + steps
    assert total(CostModel(no_pop).imagination(1)).calls == 2 + steps * 65


def test_bytes_hold_every_parameter_and_state_that_a_call_must_read() -> None:
    config = build(SMALL)
    model = CostModel(config)
    layer = make_workload(config, torch.device("cpu")).agent.world_model.sequence_model.decoder.layers[0]
    matrices = sum(p.numel() for name, p in layer.named_parameters() if "norm" not in name)
    assert model.layer_parameters == matrices
    iris = build(SMALL | IRIS)
    its_layer = make_workload(iris, torch.device("cpu")).agent.world_model.sequence_model.layers[0]
    assert CostModel(iris).layer_parameters == sum(
        p.numel() for name, p in its_layer.named_parameters() if "norm" not in name
    )
    one, two = (model._call_bytes(Call(b, 1, 17)) for b in (1, 2))
    parameters = 2 * matrices * 4
    states = 2 * 2 * 32 * 16 * 4  # read and written, two layers, E x D in float32
    activations = 2 * 2 * 17 * 32 * 4  # in and out of two layers
    assert one == parameters + states + activations
    assert two - one == states + activations, "the batch shares the parameters"


def test_a_transformer_reads_more_the_more_it_holds_and_a_retnet_does_not() -> None:
    iris, rem = CostModel(build(SMALL | IRIS)), CostModel(build(SMALL))
    assert iris._call_bytes(Call(1, 1, 1, held=100)) - iris._call_bytes(Call(1, 1, 1, held=50)) == 2 * 50 * 2 * 32 * 4
    assert iris._call_flops(Call(1, 1, 1, held=100)) > iris._call_flops(Call(1, 1, 1, held=50))
    assert rem._call_bytes(Call(1, 1, 1, held=100)) == rem._call_bytes(Call(1, 1, 1, held=50))


def test_the_floor_is_reached_by_the_slower_of_arithmetic_and_memory_in_each_call() -> None:
    parts = [Cost(1, 1, flops=100, bytes=10), Cost(1, 1, flops=10, bytes=100)]
    assert floor_s(parts, flops_per_s=10.0, bytes_per_s=10.0) == 20.0
    assert floor_s(parts, flops_per_s=10.0, bytes_per_s=1e9) == pytest.approx(11.0)


def device(**changes: object) -> Device:
    values: dict[str, object] = {
        "name": "a machine",
        "num_threads": 1,
        "matmul_flops_per_s": {"fp32": 1e12, "bf16": 1e12},
        "copy_bytes_per_s": 1e11,
        "operation_s": 1e-6,
        "clocks_mhz": {},
        "calibration": (),
    }
    return Device.model_validate(values | changes)


def test_the_predicted_speed_up_lies_between_its_bounds_on_any_machine() -> None:
    for operation_s in (0.0, 1e-5, 1e-3):
        for flops in (1e10, 1e15):
            for bytes_per_s in (1e9, 1e13):
                machine = device(
                    operation_s=operation_s,
                    matmul_flops_per_s={"fp32": flops, "bf16": flops},
                    copy_bytes_per_s=bytes_per_s,
                )
                for b in bounds(machine):
                    low, high = min(b.operations, b.flops, b.bytes), max(b.operations, b.flops, b.bytes)
                    assert low * (1 - 1e-12) <= b.predicted <= high * (1 + 1e-12), b


def test_a_machine_bound_by_launches_gets_the_ratio_of_operations_and_one_bound_by_arithmetic_that_of_flops() -> None:
    launches = bounds(device(operation_s=1.0))
    assert all(b.predicted == pytest.approx(b.operations) for b in launches)
    arithmetic = bounds(device(operation_s=0.0, copy_bytes_per_s=1e30))
    assert all(b.predicted == pytest.approx(b.flops) for b in arithmetic)
    assert any(b.flops < 1 for b in arithmetic), "POP does more arithmetic: it need not pay"
