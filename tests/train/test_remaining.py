"""How much a run has still to do, and how long a step takes: counts against whole runs, paces against logs."""

from collections import Counter
from typing import NamedTuple

import pytest

from remctl import runner
from remctl.config import resolve
from remctl.pace import Left, Pace
from remctl.progress import Reporter
from remctl.runs.files import read_jsonl
from remctl.runs.layout import RunFolder
from remctl.train.remaining import FINAL, TEST, TRAINED, epoch_work, guess_episodes, measured, work_left
from tests.train.support import tiny

CONFIG = tiny("tokenizer.warmup=fixed", "controller.training.start_after_epoch=1")


class Begun(NamedTuple):
    """A counted loop when it begins: its steps, and what was left of the run."""

    name: str
    steps: int
    left: Left | None


class Recorded(NamedTuple):
    """The loops of a whole run, then those of one that is resumed after its last epoch, and the log of both."""

    whole: list[Begun]
    resumed: list[Begun]
    log: list[dict]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder, begun, running = tmp_path_factory.mktemp("runs"), list[Begun](), Reporter._running

    def watched(reporter: Reporter, name: str, total: int | None, skip_first: bool = False):
        if total is not None:
            begun.append(Begun(name, total, reporter.pace.left()))
        return running(reporter, name, total, skip_first)

    def train() -> tuple[RunFolder, list[Begun]]:
        del begun[:]
        run = runner.train(CONFIG, out=folder, experiment="x", device="cpu", command=[], quiet=True)
        return run, begun[:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "_running", watched)
        patch.setattr("remctl.train.estimate.ENV_STEP_S", 0.1)  # half a second of work in all is not worth telling
        run, whole = train()
        run.result.unlink()
        patch.setattr("remctl.train.estimate.measure", lambda *_: pytest.fail("timed again"))
        _, resumed = train()
    return Recorded(whole, resumed, read_jsonl(run.metrics))


def test_a_run_has_the_loops_that_were_counted_before_it_began(recorded: Recorded) -> None:
    did: Counter[str] = Counter()
    for loop in recorded.whole:
        did[loop.name] += loop.steps
    assert did == Counter(work_left(CONFIG, 0))


def test_all_paces_are_known_after_the_first_collection(recorded: Recorded) -> None:
    first, *rest = [loop.left for loop in recorded.whole]
    assert first is not None
    assert not first.complete  # nobody knows yet how long games last
    assert all(left is not None and left.complete for left in rest)


def test_a_resumed_run_uses_what_was_measured_before(recorded: Recorded) -> None:
    (final,) = recorded.resumed
    assert final.left is not None
    assert final.left.complete
    assert final.left.seconds == pytest.approx(5 * recorded.log[-1]["test/wall_s"] / 3)  # 5 episodes, 3 in a test


def test_paces_are_read_from_the_last_epoch_that_has_them() -> None:
    config = resolve("Pong", "quick")
    v = epoch_work(config, 1)["tokenizer"]
    entries = [
        {
            "epoch": 1,
            "collect/wall_s": 22.0,
            "tokenizer/wall_s": 10.0,
            "tokenizer/warmup_steps": 50,
            "test/wall_s": 9.0,
        },
        {"epoch": 2, "collect/wall_s": 4.0, "world_model/wall_s": 12.0, "encode/wall_s": None},
        {"test/wall_s": 1.0},  # not written here
    ]
    assert measured(config, entries) == {
        "tokenizer": 10.0 / (v + 50),
        "collect": 4.0 / 200,
        "world model": 12.0 / epoch_work(config, 2)["world model"],
    }


def test_tests_beside_training_take_no_time_of_the_run_but_the_final_one_does() -> None:
    config = resolve("Pong")
    assert work_left(config, 0)[TEST] == 55 * 16
    beside = work_left(config, 0, tests_in_turn=False)
    assert (beside[TEST], beside[FINAL]) == (0, 100)
    assert measured(config, [{"epoch": 60, "test/wall_s": 5.0}], tests_in_turn=False) == {}
    assert set(TRAINED.values()) < set(beside)


def test_nothing_but_the_final_episodes_is_left_after_the_last_epoch() -> None:
    config = resolve("Pong", "quick")
    left = {name: n for name, n in work_left(config, config.training.num_epochs).items() if n}
    assert left == {FINAL: config.evaluation.final_episodes}


def test_an_episode_is_guessed_from_the_games_collected_and_the_quickest_collection() -> None:
    config, pace = resolve("Pong"), Pace(measured={"collect": 0.01})
    guess_episodes(config, pace)
    assert pace.step_s(TEST) is None
    pace.measured["collect"] = 0.05  # with networks
    guess_episodes(config, pace, [{"length_steps": 100}, {"length_steps": 300}])
    assert (pace.step_s(TEST), pace.step_s(FINAL)) == (2.0, 2.0)


@pytest.mark.parametrize(("preset", "final_s"), [("paper", 5.0), ("quick", 2.0)])
def test_a_final_episode_takes_as_long_as_one_of_a_test_with_as_many_environments(preset: str, final_s: float) -> None:
    pace = Pace(measured={"collect": 0.01, TEST: 5.0})
    guess_episodes(resolve("Pong", preset), pace, [{"length_steps": 200}])
    assert pace.step_s(FINAL) == final_s
    known = Pace(measured={TEST: 5.0})
    guess_episodes(resolve("Pong", preset), known)
    assert known.step_s(FINAL) == 5.0
