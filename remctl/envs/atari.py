"""Atari games under the Atari 100K protocol, directly on the Arcade Learning Environment.

The dynamics are those of the `NoFrameskip-v4` ids with the usual wrappers around them: no sticky actions, the minimal
action set, a frame skip of 4, no-ops on reset, a time limit in raw frames, and in training an episode per life.
Section A of the paper; the protocol is that of IRIS. Raw frames are emulator frames, 60 a second.

A game in progress is saved as the emulator's state before the game was started and the actions played since. The
emulator's state of the moment would not do: up to ale-py 0.12 it lacks the unfinished picture (so Qbert goes on
differently) and the action that may stick. Starting the game anew is needed in any case, because some games, Assault
among them, carry memory from one game into the next.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Literal

import numpy as np
from ale_py import Action, ALEInterface, ALEState, LoggerMode, roms
from PIL import Image

from remctl import games
from remctl.interfaces import EnvStep, Frame

Phase = Literal["new", "running", "life_lost", "over"]

_NOOP = int(Action.NOOP.value)


class Atari:
    """One Atari game.

    Frames are uint8 (frame_size, frame_size, 3) RGB: each of the last two raw frames is resized (PIL bilinear), then
    the maximum of the two is taken. With `frame_skip=1` there is one raw frame per step and no maximum.
    Rewards are the game's points summed over the skipped frames, not clipped.

    game: CamelCase name; UserError with the nearest names if it is unknown.
    noops: smallest and largest number of no-ops, in raw frames, played when a game starts.
    time_limit_frames: raw frames of one game, no-ops included, after which an episode is truncated.
    end_on_life_loss: a lost life terminates the episode; the next `reset` continues the same game.
    late_game_over: a game over on the last raw frame of a step is noticed by the next step, whatever its action; on that
        nothing happens any more, and it bears the end (the published code; one game over in `frame_skip` is such a one).
    dead_starts: a game that ends during the no-op after a lost life leaves an episode of one step, which bears the end
        (the published code); otherwise a new game starts at once.
    sticky_probability: chance that the emulator repeats the previous action at a raw frame (0 in the protocol).
    seed: of the emulator's own generator, which is used for sticky actions only; any integer.
    """

    def __init__(
        self,
        game: str,
        *,
        frame_skip: int = 4,
        frame_size: int = 64,
        noops: tuple[int, int] = (1, 30),
        time_limit_frames: int = 20_000,
        end_on_life_loss: bool = True,
        late_game_over: bool = False,
        dead_starts: bool = False,
        sticky_probability: float = 0.0,
        full_action_space: bool = False,
        seed: int = 0,
    ) -> None:
        if frame_skip < 1 or frame_size < 1 or time_limit_frames < 1 or not 0 <= noops[0] <= noops[1]:
            raise ValueError("frame_skip, frame_size and time_limit_frames must be positive, noops 0 <= least <= most")
        self.game = games.check_game(game)
        self._frame_skip = frame_skip
        self._frame_size = (frame_size, frame_size)
        self._noops = noops
        self._time_limit_frames = time_limit_frames
        self._end_on_life_loss = end_on_life_loss
        self._late_game_over, self._dead_starts = late_game_over, dead_starts
        self._ale = _load(self.game, sticky_probability, seed)
        self._screen = np.empty((*self._ale.getScreenDims(), 3), np.uint8)
        self._before_game: bytes = self._ale.cloneState(include_rng=True).serialize()
        self._played = bytearray()  # the emulator's action at each raw frame of this game
        self._lives = 0
        self._phase: Phase = "new"
        self.is_new_game = True
        actions = self._ale.getLegalActionSet() if full_action_space else self._ale.getMinimalActionSet()
        self._actions = tuple(int(action.value) for action in actions)  # plain numbers: act() takes them twice as fast
        self.num_actions = len(actions)
        self.action_names = tuple(str(action.name) for action in actions)

    def reset(self, rng: np.random.Generator) -> Frame:
        """Start an episode and return its first frame; `rng` draws the number of no-ops of a new game.

        After a lost life the same game goes on with one no-op (an agent step, so `frame_skip` raw frames); its points
        are nobody's. In every other case, after a time limit too, the game starts anew: also where it ends during that
        no-op, unless `dead_starts`. `is_new_game` says which it was.
        """
        frame = self._continue_game() if self._phase == "life_lost" else None
        self.is_new_game = frame is None
        if frame is None:
            frame = self._new_game(rng)
        self._lives = self._ale.lives()
        self._phase = "running"
        return frame

    def step(self, action: int) -> EnvStep:
        """Play an action, an index into `action_names`, for `frame_skip` raw frames, or fewer if the game ends.

        A time limit reached in the very frame of the game's end is no truncation. One reached in the same step as a
        lost life is reported beside it: terminated and truncated. What is over already, since nobody noticed
        (`late_game_over`, `dead_starts`), ends in the first raw frame, without points.
        """
        assert self._phase == "running", f"step() in phase {self._phase!r}: call reset() first"
        assert 0 <= action < self.num_actions, f"action {action} of {self.num_actions}"
        was_over, num_before = bool(self._ale.game_over()), len(self._played)
        frame, reward = self._advance(self._actions[action])
        life_lost = self._lose_life()
        game_over, out_of_time = bool(self._ale.game_over()), self._out_of_time()
        on_last_frame = len(self._played) - num_before == self._frame_skip
        if self._late_game_over and on_last_frame and not was_over and not out_of_time:
            game_over = False
        truncated = not game_over and out_of_time
        if game_over or truncated:
            self._phase = "over"
        elif life_lost:
            self._phase = "life_lost"
        return EnvStep(frame, reward, game_over or life_lost, truncated, game_over)

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on from here, in another process too; JSON-compatible, 10 to 20 kB."""
        return {
            "game": self.game,
            "before_game": _to_text(self._before_game),
            "played": _to_text(bytes(self._played)),
            "lives": self._lives,
            "phase": self._phase,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of `get_state`, by playing its game again: half a second per 20,000 raw frames.

        The constructor's arguments are not part of the state and must be the same.
        """
        if state["game"] != self.game:
            raise ValueError(f"this is {self.game}, the state is of {state['game']}: make the environment of that game")
        self._lives = state["lives"]
        self._phase = state["phase"]
        self._ale.restoreState(ALEState(_from_text(state["before_game"])))
        if self._phase != "new":
            self._restart()
            for ale_action in _from_text(state["played"]):
                self._act(ale_action)

    def close(self) -> None:
        """Nothing to close: the emulator lives in this process's memory."""

    def _new_game(self, rng: np.random.Generator) -> Frame:
        self._restart()
        for _ in range(int(rng.integers(self._noops[0], self._noops[1], endpoint=True))):
            self._act(_NOOP)
            if self._ended():
                self._restart()  # and the remaining no-ops are played in the new game, as in the original wrapper
        return self._grab()

    def _continue_game(self) -> Frame | None:
        """One no-op after a lost life; None if the game ended meanwhile, and a new one has to start."""
        frame, _ = self._advance(_NOOP)
        return None if self._ended() and not self._dead_starts else frame

    def _advance(self, ale_action: int) -> tuple[Frame, float]:
        """Skip frames under one action: the maximum of the last two resized raw frames, and the points.

        Cut short, the frame is the last one alone: nothing learns from the frame after an end.
        """
        reward = 0.0
        frames: list[Frame] = []
        for index in range(self._frame_skip):
            reward += self._act(ale_action)
            ended = self._ended()
            if ended or index >= self._frame_skip - 2:
                frames.append(self._grab())
            if ended:
                break
        return (np.maximum(*frames) if len(frames) == 2 else frames[0]), reward

    def _lose_life(self) -> bool:
        """Whether a life was lost in this step, as far as it matters.

        The step to 0 lives does not: it is the game over that ends the episode, once. The two may be frames apart,
        and BankHeist counts its last life as 0, so that its last two lives are one episode. So the protocol has it.
        """
        before, self._lives = self._lives, self._ale.lives()
        return self._end_on_life_loss and 0 < self._lives < before

    def _act(self, ale_action: int) -> int:
        self._played.append(ale_action)
        return int(self._ale.act(ale_action))

    def _restart(self) -> None:
        self._before_game = self._ale.cloneState(include_rng=True).serialize()
        self._ale.reset_game()
        self._played.clear()

    def _out_of_time(self) -> bool:
        return len(self._played) >= self._time_limit_frames

    def _ended(self) -> bool:
        return self._ale.game_over() or self._out_of_time()

    def _grab(self) -> Frame:
        """The emulator's screen, resized. Two thirds of a step's time are spent here, so call it only where needed."""
        self._ale.getScreenRGB(self._screen)
        return np.array(Image.fromarray(self._screen).resize(self._frame_size, Image.Resampling.BILINEAR))


def _load(game: str, sticky_probability: float, seed: int) -> ALEInterface:
    ALEInterface.setLoggerMode(LoggerMode.Error)  # else every environment prints a banner
    ale = ALEInterface()
    ale.setInt("random_seed", seed % 2**31)  # settings count from the next loadROM on
    ale.setFloat("repeat_action_probability", sticky_probability)
    rom = roms.get_rom_path(games.rom_id(game))
    assert rom is not None, f"ale-py lists {game} but has no ROM of it"
    ale.loadROM(rom)
    return ale


def _to_text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode("ascii")


def _from_text(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
