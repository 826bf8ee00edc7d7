"""The Atari 100K protocol, against a plain transcription of it over Gymnasium's own raw environment."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from functools import partial
from typing import Any

import ale_py  # noqa: F401 - registers the NoFrameskip ids
import gymnasium
import numpy as np
import pytest
from PIL import Image

from remctl.envs.atari import Atari
from remctl.errors import UserError
from remctl.interfaces import EnvStep

TRAIN = {"noops": (1, 30), "time_limit_frames": 20_000, "end_on_life_loss": True}
TEST = {"noops": (1, 1), "time_limit_frames": 108_000, "end_on_life_loss": False}


class Reference:
    """The protocol as one writes it down: every raw frame resized and kept, nothing clever."""

    def __init__(
        self,
        game: str,
        noops: tuple[int, int],
        time_limit_frames: int,
        end_on_life_loss: bool,
        late_game_over: bool = False,
        dead_starts: bool = False,
    ) -> None:
        self.raw: Any = gymnasium.make(f"{game}NoFrameskip-v4").unwrapped
        self.noops, self.limit, self.end_on_life_loss = noops, time_limit_frames, end_on_life_loss
        self.late_game_over, self.dead_starts = late_game_over, dead_starts
        self.anew, self.dead, self.num_dead_steps = True, False, 0

    def raw_reset(self) -> np.ndarray:
        self.count = 0
        return self.resized(self.raw.reset()[0])

    def raw_step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        picture, reward, over, _, _ = self.raw.step(action)
        self.count += 1
        return self.resized(picture), reward, over, self.count >= self.limit and not over

    def resized(self, picture: np.ndarray) -> np.ndarray:
        assert picture.shape == (210, 160, 3)
        return np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        if not self.anew:
            frame, _, over, late, _ = self.skip(0)
            self.dead = (over or late) and self.dead_starts
            self.anew = (over or late) and not self.dead_starts
        if self.anew:
            frame = self.raw_reset()
            for _ in range(rng.integers(self.noops[0], self.noops[1] + 1)):
                frame, _, over, late = self.raw_step(0)
                if over or late:
                    frame = self.raw_reset()
        self.lives = self.raw.ale.lives()
        return frame

    def skip(self, action: int) -> tuple[np.ndarray, float, bool, bool, int]:
        frames, rewards = [], []
        for _ in range(4):
            frame, reward, over, late = self.raw_step(action)
            frames.append(frame)
            rewards.append(reward)
            if over or late:
                break
        picture = np.max(frames[-2:], axis=0) if len(frames) == 4 else frame
        return picture, sum(rewards), over, late, len(frames)

    def step(self, action: int) -> EnvStep:
        frame, reward, over, late, num_raw = self.skip(action)
        was_dead, self.dead = self.dead, False
        self.num_dead_steps += was_dead
        if self.late_game_over and over and num_raw == 4 and not was_dead and self.count < self.limit:
            over, self.dead = False, True
        self.anew = over or late
        lives, self.lives = self.lives, self.raw.ale.lives()
        died = self.end_on_life_loss and self.lives < lives and self.lives > 0
        return EnvStep(frame, reward, over or died, late, over)


@pytest.mark.parametrize("num_steps", [400, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", [TRAIN, TEST, TRAIN | {"time_limit_frames": 500}], ids=["train", "test", "short"])
@pytest.mark.parametrize("game", ["Pong", "Breakout", "Qbert"])
def test_the_protocol_to_the_pixel(game: str, mode: dict[str, Any], num_steps: int) -> None:
    ends = set(play_both(Atari(game, **mode), Reference(game, **mode), num_steps))
    expected = set()
    if game != "Pong":
        expected |= {(True, False, True)} if mode["time_limit_frames"] > 500 else {(False, True, False)}
        expected |= {(True, False, False)} if mode["end_on_life_loss"] else set()
    assert expected <= ends, "this run did not meet what it is there to compare"


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("mode", [TRAIN, TEST], ids=["train", "test"])
def test_a_game_over_on_the_last_raw_frame_is_noticed_late_as_published_or_at_once(
    mode: dict[str, Any], is_late: bool
) -> None:
    options = mode | {"late_game_over": is_late}
    reference = Reference("RoadRunner", **options)
    ends = play_both(Atari("RoadRunner", **options), reference, 1200)
    assert ends.count((True, False, True)) > 2
    assert (reference.num_dead_steps > 0) == is_late


@pytest.mark.parametrize("frame_skip", [1, 4])
def test_a_game_over_is_noticed_one_step_late_and_not_later(frame_skip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    env = Atari("Breakout", noops=(1, 1), frame_skip=frame_skip, late_game_over=True)
    env.reset(np.random.default_rng(0))
    monkeypatch.setattr(env, "_ale", EndingGame(env._ale, num_frames=2 * frame_skip))
    assert [env.step(0)[1:] for _ in range(3)] == [(0.0, False, False, False)] * 2 + [(0.0, True, False, True)]


@pytest.mark.parametrize("frames_left", [0, 2])  # until the game's end, in the frames of the no-op after a lost life
@pytest.mark.parametrize("has_dead_starts", [False, True])
def test_a_game_that_ends_in_the_noop_after_a_lost_life_is_left_by_one_step_as_published_or_at_once(
    has_dead_starts: bool, frames_left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Atari("Breakout", noops=(1, 1), dead_starts=has_dead_starts)
    env.reset(np.random.default_rng(0))
    assert fire_until_a_life_is_lost(env).terminated
    monkeypatch.setattr(env, "_ale", EndingGame(env._ale, num_frames=frames_left + 1))
    frame = env.reset(np.random.default_rng(0))
    step = env.step(env.action_names.index("FIRE"))
    if has_dead_starts:
        assert (env.is_new_game, step[1:]) == (False, (0.0, True, False, True))
        env.reset(np.random.default_rng(0))
        step = env.step(0)
    else:
        assert (frame == Atari("Breakout", noops=(1, 1)).reset(np.random.default_rng(0))).all()
    assert not step.terminated
    assert env.is_new_game


class EndingGame:
    """An emulator whose present game is over after `num_frames` more raw frames; then nothing moves until it is reset."""

    def __init__(self, ale: Any, num_frames: int) -> None:
        self.ale, self.num_left = ale, num_frames

    def act(self, action: int) -> int:
        self.num_left -= 1
        return int(self.ale.act(action)) if self.num_left >= 0 else 0

    def game_over(self) -> bool:
        return self.num_left <= 0 or bool(self.ale.game_over())

    def reset_game(self) -> None:
        self.num_left = 10**9
        self.ale.reset_game()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ale, name)


def play_both(env: Atari, reference: Reference, num_steps: int) -> list[tuple[bool, bool, bool]]:
    """Compare step for step; return terminated, truncated and game over of each episode that ended."""
    ours, theirs, actions = np.random.default_rng(1), np.random.default_rng(1), np.random.default_rng(2)
    assert (env.reset(ours) == reference.reset(theirs)).all()
    ends = []
    for _ in range(num_steps):
        action = int(actions.integers(env.num_actions))
        a, b = env.step(action), reference.step(action)
        assert a[1:] == b[1:]
        ended = a.terminated or a.truncated
        if ended:  # the frame after an end is never used
            ends.append(a[2:])
            a, b = a._replace(frame=env.reset(ours)), b._replace(frame=reference.reset(theirs))
        assert (a.frame == b.frame).all()
    return ends


def fire_until_a_life_is_lost(env: Atari) -> EnvStep:
    while True:
        step = env.step(env.action_names.index("FIRE"))
        if step.terminated or step.truncated:
            return step


def test_a_lost_life_ends_the_episode_and_the_game_goes_on() -> None:
    env = Atari("Breakout", noops=(1, 1))
    start = env.reset(np.random.default_rng(0))
    lives = []
    for _ in range(4):
        assert fire_until_a_life_is_lost(env)[2:] == (True, False, False)
        played = len(env._played)
        frame = env.reset(np.random.default_rng(0))
        assert len(env._played) == played + 4, "one no-op is one agent step"
        assert (frame != start).any()
        lives.append(env.get_state()["lives"])
    assert lives == [4, 3, 2, 1]
    assert fire_until_a_life_is_lost(env)[2:] == (True, False, True)
    assert (env.reset(np.random.default_rng(0)) == start).all()
    assert env.get_state()["lives"] == 5


def test_the_step_to_no_lives_is_no_end_unless_the_game_is_over() -> None:
    """BankHeist plays its last life with 0 lives shown."""
    env, rng = Atari("BankHeist", noops=(1, 1)), np.random.default_rng(0)
    env.reset(rng)
    ends = []
    while not ends or not ends[-1][1]:
        before = env.get_state()["lives"]
        step = env.step(int(rng.integers(env.num_actions)))
        lives = env.get_state()["lives"]
        if lives != before or step.terminated:
            ends.append((lives, step.game_over, step.terminated))
        if step.terminated:
            env.reset(rng)
    assert [end[0] for end in ends if end[0] == 0] == [0, 0]
    assert all(terminated == (lives > 0 or game_over) for lives, game_over, terminated in ends)


def test_in_test_mode_a_game_is_one_episode() -> None:
    env = Atari("Breakout", **TEST)
    env.reset(np.random.default_rng(0))
    assert fire_until_a_life_is_lost(env)[2:] == (True, False, True)


def test_the_time_limit_truncates_and_starts_the_game_anew() -> None:
    env = Atari("Pong", noops=(2, 2), time_limit_frames=100)
    start = env.reset(np.random.default_rng(0))
    steps = [env.step(0) for _ in range(25)]
    assert [step.truncated for step in steps] == [False] * 24 + [True]
    assert not any(step.terminated or step.game_over for step in steps)
    assert len(env._played) == 100, "the last step is cut in the middle"
    with pytest.raises(AssertionError, match="reset"):
        env.step(0)
    assert (env.reset(np.random.default_rng(0)) == start).all()
    assert len(env._played) == 2


def test_a_game_over_at_the_time_limit_is_no_truncation() -> None:
    probe = Atari("Breakout", **TEST)
    probe.reset(np.random.default_rng(0))
    fire_until_a_life_is_lost(probe)
    env = Atari("Breakout", **TEST | {"time_limit_frames": len(probe._played)})
    env.reset(np.random.default_rng(0))
    assert fire_until_a_life_is_lost(env)[2:] == (True, False, True)


@pytest.mark.parametrize("frames_left", [0, 1, 3, 4])
def test_a_time_limit_at_a_lost_life_starts_the_game_anew(frames_left: int) -> None:
    probe = Atari("Breakout", noops=(1, 1))
    probe.reset(np.random.default_rng(0))
    fire_until_a_life_is_lost(probe)
    env = Atari("Breakout", noops=(1, 1), time_limit_frames=len(probe._played) + frames_left)
    start = env.reset(np.random.default_rng(0))
    assert fire_until_a_life_is_lost(env)[2:] == (True, frames_left == 0, False)
    assert (env.reset(np.random.default_rng(0)) == start).all(), "the no-op ran into the limit, or there was none"
    assert env.get_state()["lives"] == 5


def test_noops_are_uniform_in_raw_frames_and_exact_in_test() -> None:
    env, rng = Atari("Pong", noops=(1, 30)), np.random.default_rng(0)
    counts = [(env.reset(rng), len(env._played))[1] for _ in range(120)]
    assert (min(counts), max(counts)) == (1, 30)
    assert np.mean(counts) == pytest.approx(15.5, abs=2)
    env = Atari("Pong", **TEST)
    assert {(env.reset(rng), len(env._played))[1] for _ in range(5)} == {1}


def test_a_game_that_ends_during_the_noops_is_started_again() -> None:
    env = Atari("Pong", noops=(25, 25), time_limit_frames=10)
    env.reset(np.random.default_rng(0))
    assert len(env._played) == 5
    assert not env.step(0).truncated


def test_without_frame_skip_every_raw_frame_is_shown_as_it_is() -> None:
    env = Atari("Pong", frame_skip=1, **TEST)
    env.reset(np.random.default_rng(0))
    for _ in range(30):
        frame = env.step(2).frame
        raw = Image.fromarray(env._ale.getScreenRGB()).resize((64, 64), Image.Resampling.BILINEAR)
        assert (frame == np.asarray(raw)).all()
    assert len(env._played) == 31


def test_actions_are_minimal_or_full() -> None:
    assert Atari("Pong").action_names == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert Atari("Pong", full_action_space=True).num_actions == 18


def digest(env: Atari, seed: int, num_steps: int) -> str:
    """What an environment shows and says from here on under random actions, resets included."""
    rng, seen = np.random.default_rng(seed), hashlib.sha256()
    for _ in range(num_steps):
        step = env.step(int(rng.integers(env.num_actions)))
        seen.update(step.frame.tobytes() + repr(step[1:]).encode())
        if step.terminated or step.truncated:
            seen.update(env.reset(rng).tobytes())
    return seen.hexdigest()


def start(game: str, noop_seed: int, **options: Any) -> Atari:
    env = Atari(game, **options)
    env.reset(np.random.default_rng(noop_seed))
    return env


def test_seeds_decide() -> None:
    runs = [digest(start("Breakout", seed), 0, 60) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    sticky = partial(start, "Pong", 0, sticky_probability=0.25)
    runs = [digest(sticky(seed=seed), 0, 60) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


RESUME = """
import json, sys
from remctl.envs.atari import Atari
from tests.envs.test_atari import digest
results = {}
for game, state in json.load(sys.stdin).items():
    env = Atari(game)
    env.set_state(state)
    results[game] = digest(env, 7, 500)
print(json.dumps(results))
"""


def test_a_state_goes_on_in_another_process_to_the_pixel() -> None:
    """Qbert and Assault are those that the emulator's own state does not restore (mid-game; into the next game)."""
    states, expected = {}, {}
    for game in ("Pong", "Assault", "Qbert"):
        env = start(game, 3)
        digest(env, 5, 237)
        states[game] = env.get_state()
        expected[game] = digest(env, 7, 500)
    done = subprocess.run(
        [sys.executable, "-c", RESUME], input=json.dumps(states), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_states_at_every_phase_restore_into_a_used_environment(noise: float) -> None:
    options = {"frame_skip": 1, "sticky_probability": noise}
    env, copy = start("Qbert", 0, **options), start("Qbert", 9, seed=8, **options)
    rng = np.random.default_rng(1)
    phases = set()
    for round_ in range(120):
        step = env.step(int(rng.integers(env.num_actions)))
        for _ in range(20):
            if step.terminated:
                break
            step = env.step(int(rng.integers(env.num_actions)))
        if step.terminated or round_ % 20 == 0:
            copy.set_state(json.loads(json.dumps(env.get_state())))
            phases.add(env.get_state()["phase"])
            assert copy.get_state() == env.get_state()
            if step.terminated:
                assert (env.reset(np.random.default_rng(2)) == copy.reset(np.random.default_rng(2))).all()
            assert digest(env, 4, 30) == digest(copy, 4, 30)
    assert phases == {"running", "life_lost", "over"}


def test_a_state_before_the_first_reset_and_of_another_game() -> None:
    env, used = Atari("Assault"), start("Assault", 1)
    digest(used, 0, 100)
    used.set_state(json.loads(json.dumps(env.get_state())))
    assert (env.reset(np.random.default_rng(0)) == used.reset(np.random.default_rng(0))).all()
    assert digest(env, 2, 100) == digest(used, 2, 100)
    with pytest.raises(ValueError, match="this is Breakout, the state is of Assault"):
        Atari("Breakout").set_state(env.get_state())


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean Pong"):
        Atari("pong")
    with pytest.raises(ValueError, match="noops"):
        Atari("Pong", noops=(3, 2))
    env = Atari("Pong")
    with pytest.raises(AssertionError, match="reset"):
        env.step(0)
    env.reset(np.random.default_rng(0))
    with pytest.raises(AssertionError, match="action -1 of 6"):
        env.step(-1)
