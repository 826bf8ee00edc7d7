"""The hours of a whole run from its measured phases: counts against a walk through every epoch."""

import pytest

from remctl.bench.whole_run import COLLECTED_STEPS, TEST_EPISODE_STEPS, Surroundings, predict
from remctl.config import resolve
from remctl.replay.buffer import ENCODE_BATCH
from remctl.train.build import build_agent
from tests.bench.test_timing import CPU
from tests.tiny import TINY

ZERO = dict.fromkeys(("tokenizer", "world_model", "controller", "collect", "encode", "test"), 0.0)


def hours(phase: str, seconds: float, **about: object) -> float:
    config = resolve(**({"game": "Pong"} | about))  # type: ignore[arg-type]
    prediction = predict(config, ZERO | {phase: seconds}, "it")
    assert sum(prediction.phase_hours.values()) == pytest.approx(prediction.hours)
    return prediction.phase_hours[phase] * 3600


def test_the_published_schedule() -> None:
    assert hours("tokenizer", 1.0) == (600 - 5) * 200
    assert hours("world_model", 1.0) == (600 - 25) * 200
    assert hours("controller", 1.0) == (600 - 50) * 100
    assert hours("collect", 1.0) * COLLECTED_STEPS == 100_000


def test_every_stored_frame_is_encoded_again_after_v_has_changed() -> None:
    frames = sum(200 * min(epoch, 500) for epoch in range(26, 601))
    assert hours("encode", 1.0) * ENCODE_BATCH == pytest.approx(frames)


def test_a_warm_up_is_counted_at_its_longest() -> None:
    config = resolve("Pong", "quick")
    v = config.tokenizer
    trained = v.training.first_epoch_extra_steps + 2 * v.training.steps_per_epoch
    assert hours("tokenizer", 1.0, preset="quick") == pytest.approx(v.warmup_steps + trained)


def test_frames_are_encoded_once_where_v_is_frozen() -> None:
    config = resolve("Pong", "quick")
    stop, epochs = config.tokenizer.training.stop_after_epoch, config.training.num_epochs
    assert stop is not None
    assert stop < epochs
    sizes = [2000 + 200 * epoch for epoch in range(1, epochs + 1)]
    expected = sum(sizes[:stop]) + 200 * (epochs - stop)
    assert hours("encode", 1.0, preset="quick") * ENCODE_BATCH == pytest.approx(expected)


def test_tests_before_c_is_trained_are_skipped_and_environments_play_side_by_side() -> None:
    tests = len([epoch for epoch in range(10, 601, 10) if epoch > 50])
    expected = (tests * 16 / 8 + 100 / 8) * TEST_EPISODE_STEPS
    assert hours("test", 1.0) == pytest.approx(expected)


def test_what_is_measured_around_the_training_steps_runs_on_a_real_environment() -> None:
    config = resolve("Catch", "quick", sets=TINY)
    around = Surroundings(build_agent(config, 3, CPU))
    works = around.works()
    assert set(works) == {"collect", "encode", "test"}
    for work in works.values():
        work()
        work()
    around.close()
