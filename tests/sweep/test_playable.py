"""What cannot be played is refused before anything is written or handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl.errors import UserError
from remctl.sweep.launch import Options, launch
from remctl.sweep.spec import read_spec
from tests.sweep.fake_slurm import FakeSlurm
from tests.sweep.support import write_spec

MODULE = """import gymnasium, numpy as np
print("imported")
class Seen(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}
    def __init__(self, render_mode=None): self.render_mode = render_mode
    def reset(self, seed=None, options=None): return 0, {}
    def render(self): return np.zeros((8, 8, 3), np.uint8)
class Blind(Seen):
    def render(self): return None
gymnasium.register("PlayableSeen-v0", Seen)
gymnasium.register("PlayableBlind-v0", Blind)
"""
SAYS = {
    "gym:no_such_module:X": "no module 'no_such_module'",
    "gym:NoSuchGame-v0": "knows no environment 'NoSuchGame-v0'",
    "gym:playable_module:PlayableBlind-v0": "renders NoneType",
}


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "playable_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def started(folder: Path, game: str, executor: str, say: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of runs handed over."""
    handed: list[int] = []
    monkeypatch.setattr("remctl.sweep.local.start_queue", lambda submission, out: handed.append(len(submission.tasks)))
    spec = write_spec(folder, seeds="[0]")
    spec.write_text(spec.read_text().replace("[Catch]", f"[Catch, '{game}']"))
    (folder / "cpu.yaml").write_text("gpus: 0\n")
    options = Options(executor, str(folder / "cpu.yaml"))
    _, submission = launch(folder / "runs", read_spec(spec), options, say=say.append)
    return len(submission.tasks) if submission else 0


@pytest.mark.parametrize("game", SAYS)
def test_a_game_that_cannot_be_played_here_is_refused(
    game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as caught:
        started(tmp_path, game, "local", [], monkeypatch)
    said = str(caught.value)
    assert SAYS[game] in said
    assert f"tiny.yaml: variant 'rem', {game}: " in said
    assert "\n" not in said
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == [".launching"]


def test_one_that_can_be_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(tmp_path, "gym:playable_module:PlayableSeen-v0", "local", [], monkeypatch) == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("game", SAYS)
def test_a_module_that_slurms_nodes_may_have_is_only_noted(
    game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch)
    said: list[str] = []
    if "no_such_module" in game:
        assert started(tmp_path, game, "slurm", said, monkeypatch) == 4
        assert any("the nodes may have what is missing" in line and SAYS[game] in line for line in said)
        return
    with pytest.raises(UserError, match=SAYS[game]):
        started(tmp_path, game, "slurm", said, monkeypatch)
