"""The environments: one `make_env` for Atari games, toys and Gymnasium ids.

Each kind is imported only when it is asked for.
"""

from __future__ import annotations

from remctl import games
from remctl.config import EnvironmentConfig
from remctl.envs.modules import import_installed as import_installed
from remctl.errors import UserError
from remctl.interfaces import Env


def make_env(game: str, environment: EnvironmentConfig, *, training: bool, seed: int) -> Env:
    """The environment of a game in its training form (no-ops, time limit and lives) or its test form.

    `seed` is for what the generator given to `reset` does not reach, such as an emulator's sticky actions.
    Raises UserError for an unknown game or an environment that cannot be used.
    """
    game = games.check_game(game)
    make = {"atari": _make_atari, "toy": _make_toy, "gym": _make_gym}[games.kind(game)]
    return make(game, environment, training, seed)


def _make_atari(game: str, environment: EnvironmentConfig, training: bool, seed: int) -> Env:
    from remctl.envs.atari import Atari

    return Atari(
        game,
        frame_skip=environment.frame_skip,
        frame_size=environment.frame_size,
        noops=_noops(environment, training),
        time_limit_frames=_time_limit_frames(environment, training),
        end_on_life_loss=training and environment.end_on_life_loss,
        late_game_over=environment.late_game_over,
        dead_starts=environment.dead_starts,
        sticky_probability=environment.sticky_probability,
        full_action_space=environment.full_action_space,
        seed=seed,
    )


def _make_toy(game: str, environment: EnvironmentConfig, training: bool, seed: int) -> Env:
    from remctl.envs.catch import GRID, Catch

    if environment.frame_size % GRID:
        raise UserError(f"{game} needs environment.frame_size to be a multiple of {GRID}, not {environment.frame_size}")
    return Catch(frame_size=environment.frame_size)


def _make_gym(game: str, environment: EnvironmentConfig, training: bool, seed: int) -> Env:
    from remctl.envs.pixels import GymPixels

    return GymPixels(
        game.removeprefix(games.GYM_PREFIX),
        frame_skip=environment.frame_skip,
        frame_size=environment.frame_size,
        enlarge=environment.enlarge,
        time_limit_frames=_time_limit_frames(environment, training),
        seed=seed,
        arguments=environment.arguments,
    )


def _noops(environment: EnvironmentConfig, training: bool) -> tuple[int, int]:
    if training:
        return min(1, environment.max_noops_train), environment.max_noops_train
    return environment.noops_test, environment.noops_test


def _time_limit_frames(environment: EnvironmentConfig, training: bool) -> int:
    return environment.time_limit_train_frames if training else environment.time_limit_test_frames
