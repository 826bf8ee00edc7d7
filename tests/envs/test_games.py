"""The names, the table of scores, and what a wrong name is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from remctl import games
from remctl.errors import UserError


def test_the_table_covers_exactly_the_26_games() -> None:
    assert tuple(games.scores()) == games.ATARI_100K
    assert len(set(games.ATARI_100K)) == 26
    assert set(games.ABLATION_SUBSET) < set(games.ATARI_100K)
    assert len(games.ABLATION_SUBSET) == 8


def test_scores_are_those_of_table_1() -> None:
    assert (games.reference_scores("MsPacman").random, games.reference_scores("MsPacman").score) == (307.3, 6951.6)
    assert games.scores()["UpNDown"].published["REM"] == 3757.6
    assert set(games.scores()["Alien"].published) == {"SimPLe", "DreamerV3", "TWM", "STORM", "IRIS", "REM"}


def test_published_mean_of_human_normalised_scores() -> None:
    mean = sum(games.normalized(game, row.published["REM"]) for game, row in games.scores().items()) / 26
    assert mean == pytest.approx(1.222, abs=5e-4)


@pytest.mark.parametrize(("score", "normalised"), [(-20.7, 0.0), (14.6, 1.0), (-3.05, 0.5), (-56.0, -1.0)])
def test_human_normalised(score: float, normalised: float) -> None:
    assert games.normalized("Pong", score) == pytest.approx(normalised)


@pytest.mark.parametrize("name", ["Pong", "Tetris", "TicTacToe3D", "Catch", "gym:CartPole-v1", "gym:ALE/Pong-v5"])
def test_known_names_are_returned_unchanged(name: str) -> None:
    assert games.check_game(name) == name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pong", "did you mean Pong?"),
        ("ms_pacman", "did you mean MsPacman?"),
        ("catch", "did you mean Catch?"),
        ("ALE/Breakout-v5", "did you mean Breakout?"),
        ("BreakoutNoFrameskip-v4", "did you mean Breakout?"),
        ("Seaqest", "did you mean Seaquest?"),
        ("MazeCraze", "it takes two players"),
        ("CartPole-v1", "did you mean gym:CartPole-v1?"),
        ("gym:", "gym:ID for a Gymnasium environment"),
        ("", "gym:ID for a Gymnasium environment"),
        ("xyzzy", "gym:ID for a Gymnasium environment"),
    ],
)
def test_unknown_names_get_one_line_of_advice(name: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        games.check_game(name)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_listed_atari_game_can_be_loaded() -> None:
    from ale_py import ALEInterface, roms  # a ROM it does not support would end the process

    listed = games.atari_games()
    assert set(games.ATARI_100K) < set(listed)
    assert len(listed) > 100
    unsupported = [g for g in listed if ALEInterface.isSupportedROM(roms.get_rom_path(games.rom_id(g))) is None]
    assert unsupported == []


@pytest.mark.parametrize(("game", "kind"), [("Pong", "atari"), ("Catch", "toy"), ("gym:Pong", "gym")])
def test_kind(game: str, kind: str) -> None:
    assert games.kind(game) == kind


@pytest.mark.parametrize(
    ("game", "folder"), [("MsPacman", "MsPacman"), ("gym:ALE/Foo-v5", "gym_ALE_Foo-v5"), ("gym:../x y", "gym_.._x_y")]
)
def test_folder_name(game: str, folder: str) -> None:
    assert games.folder_name(game) == folder


def test_importing_games_and_checking_one_of_the_26_is_cheap() -> None:
    code = "import sys, remctl.games as g; g.check_game('Pong'); print({'torch', 'ale_py'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
