"""The table of reference scores: of environments that exist, with sources, normalising as worked out by hand."""

from __future__ import annotations

import pytest

from remctl import games
from remctl.errors import UserError

BEYOND_ATARI = tuple(game for game in games.references() if game not in games.ATARI_100K)


@pytest.mark.parametrize("game", BEYOND_ATARI)
def test_every_row_has_sources_and_a_reference_above_random_play(game: str) -> None:
    row = games.reference_scores(game)
    assert games.check_game(game) == game
    assert row.random < row.score
    assert row.name not in ("", games.HUMAN)
    for source in (row.random_source, row.source):
        assert source.startswith(("exact: ", "measured: mean of ")) or "https://" in source
    assert (row.num_steps is None) == (row.name == "optimal play")
    assert row.num_steps is None or row.num_steps >= 10_000


@pytest.mark.parametrize("game", [game for game in BEYOND_ATARI if games.kind(game) == "gym"])
def test_every_id_is_one_of_its_package(game: str) -> None:
    import gymnasium

    from remctl.envs.families import register

    env_id = game.removeprefix(games.GYM_PREFIX)
    try:
        register(env_id)
    except UserError as error:
        pytest.skip(str(error))
    assert env_id in gymnasium.registry


def test_normalised_by_hand() -> None:
    assert [games.normalized("Catch", score) for score in (-0.75, 0.125, 1.0)] == [0.0, 0.5, 1.0]
    assert games.normalized("gym:bsuite/catch-v0", 0.2) == pytest.approx(0.5)  # (0.2 + 0.6) / (1 + 0.6)
    assert games.normalized("gym:MiniGrid-Empty-Random-5x5-v0", 0.968) == 1.0
    assert games.normalized("gym:MiniGrid-DoorKey-5x5-v0", 0.22) == pytest.approx(0.2)  # 0.186 / 0.93


def test_catch_at_random_and_at_its_best() -> None:
    """The exact scores, over all starts: 8 columns for the ball, wherever the paddle ends; a paddle that follows the ball."""
    import numpy as np

    from remctl.envs.catch import GRID, Catch

    rng = np.random.default_rng(0)
    env, scores = Catch(), []
    for _ in range(4000):
        env.reset(rng)
        result = env.step(1)
        while not result.terminated:
            result = env.step(int(rng.integers(3)))
        scores.append(result.reward)
    assert np.mean(scores) == pytest.approx(games.reference_scores("Catch").random, abs=0.05)
    for _ in range(100):
        env.reset(rng)
        state = env.get_state()
        for _ in range(GRID - 1):
            result = env.step(1 + int(np.sign(state["ball"][1] - env.get_state()["paddle"])))
        assert result.reward == games.reference_scores("Catch").score


@pytest.mark.parametrize(
    ("written", "row"),
    [
        ("gym:minigrid:MiniGrid-DoorKey-5x5-v0", "gym:MiniGrid-DoorKey-5x5-v0"),
        ("gym:shimmy.bsuite_compatibility:bsuite/catch-v0", "gym:bsuite/catch-v0"),
    ],
)
def test_a_module_before_the_id_is_the_same_environment(written: str, row: str) -> None:
    assert games.reference_scores(written) is games.reference_scores(row)


@pytest.mark.parametrize(
    "game", ["Tetris", "gym:X-v0", "gym:Catch", "gym:MiniGrid-DoorKey-5x5", "MiniGrid-DoorKey-5x5-v0"]
)
def test_another_game_has_none(game: str) -> None:
    assert games.find_reference(game) is None
    with pytest.raises(UserError, match=f"{game} has no reference scores to normalise by; `remctl list games`"):
        games.normalized(game, 1.0)


def test_labels() -> None:
    assert games.reference_scores("Pong").label == "human"
    assert games.reference_scores("Catch").label == "optimal play"
    assert games.reference_scores("gym:MiniGrid-DoorKey-5x5-v0").label == "PPO, 100,000 steps"
    names = [games.reference_name(of) for of in ((), ("Pong", "Tetris"), ("Pong", "Catch"), ("Catch",))]
    assert names == ["human", "human", "reference", "reference"]
