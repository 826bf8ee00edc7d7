"""The replay: segments and starting points never cross an episode, tokens follow the tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from remctl.errors import MachineError, UserError
from remctl.replay.buffer import ENCODE_BATCH, NONE, Episodes, ReplayBuffer, Steps
from remctl.replay.sampling import sample_frames, sample_segments, sample_starts
from remctl.replay.store import load_shard, save_shard, shard_path
from remctl.runs.layout import RunFolder

LENGTHS = (4, 1, 7, 2)


def make_steps(lengths: tuple[int, ...] = LENGTHS, size: int = 8) -> Steps:
    """Step i has every pixel i % 256 and action i: content tells where it came from."""
    total = sum(lengths)
    first = np.zeros(total, bool)
    first[np.cumsum((0, *lengths[:-1]))] = True
    index = np.arange(total)
    return Steps(
        frames=np.broadcast_to((index % 256)[:, None, None, None], (total, size, size, 3)).astype(np.uint8),
        actions=index.astype(np.int64),
        rewards=index.astype(np.float32),
        ends=np.append(first[1:], False),
        first=first,
    )


def encode(frames: torch.Tensor) -> torch.Tensor:
    return frames[:, 0, 0, :1].long().expand(-1, 4) + torch.arange(4)


def make_buffer(lengths: tuple[int, ...] = LENGTHS) -> ReplayBuffer:
    buffer = ReplayBuffer(sum(lengths), 8, 4, torch.device("cpu"))
    buffer.append(make_steps(lengths))
    buffer.refresh_tokens(encode)
    return buffer


def test_episode_bounds() -> None:
    episodes = Episodes(make_steps().first)
    assert episodes.before.tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert episodes.remaining.tolist() == [4, 3, 2, 1, 1, 7, 6, 5, 4, 3, 2, 1, 2, 1]


def test_segments_are_padded_right_and_never_enter_the_next_episode() -> None:
    buffer = make_buffer()
    every = np.arange(buffer.size)
    segment = buffer.segments(every, 5)
    for i in every:
        n = min(5, buffer.episodes.remaining[i])
        assert segment.real[i].tolist() == [True] * n + [False] * (5 - n)
        assert segment.actions[i, :n].tolist() == list(range(i, i + n))
        assert segment.tokens[i, :n, 0].tolist() == list(range(i, i + n))
        assert (segment.tokens[i, n:] == 0).all()
        assert (segment.rewards[i, n:] == 0).all()
        assert not segment.ends[i, n:].any()
        assert segment.starts_episode[i].item() is bool(buffer.first[i])


def test_starts_are_padded_left_and_never_reach_the_previous_episode() -> None:
    buffer = make_buffer()
    every = np.arange(buffer.size)
    start = buffer.starts(every, 3)
    for i in every:
        n = min(3, buffer.episodes.before[i])
        assert start.real[i].tolist() == [False] * (3 - n) + [True] * (n + 1)
        assert start.tokens[i, 3 - n :, 0].tolist() == list(range(i - n, i + 1))
        assert start.actions[i, 3 - n :].tolist() == list(range(i - n, i))
        assert (start.tokens[i, : 3 - n] == 0).all()
        assert (start.actions[i, : 3 - n] == 0).all()


def test_samples_are_uniform_over_exactly_the_admissible_steps() -> None:
    episodes, rng = make_buffer().episodes, np.random.default_rng(0)
    drawn = {
        "frames": (sample_frames(episodes, (200, 70), rng), range(14)),
        "segments": (sample_segments(episodes, (200, 70), 3, rng), [0, 1, 5, 6, 7, 8, 9]),
        "starts": (sample_starts(episodes, (200, 70), 2, rng), [2, 3, 7, 8, 9, 10, 11]),
    }
    for index, allowed in drawn.values():
        values, counts = np.unique(index, return_counts=True)
        assert values.tolist() == list(allowed)
        assert counts.max() / counts.min() < 1.3


def test_passes_give_every_admissible_step_once_and_end_with_a_short_batch() -> None:
    episodes, rng = make_buffer().episodes, np.random.default_rng(0)
    index = sample_segments(episodes, (5, 3), 3, rng, "passes")  # 7 admissible: batches of 3, 3 and 1
    assert [(batch != NONE).sum() for batch in index] == [3, 3, 1, 3, 3]
    assert sorted(index[:3].ravel()) == [NONE, NONE, 0, 1, 5, 6, 7, 8, 9]
    assert len(set(index[3:].ravel())) == 6
    assert index[3:].tolist() != index[:2].tolist()
    assert sorted(sample_frames(episodes, (1, 14), rng, "passes")[0]) == list(range(14))
    assert (sample_starts(episodes, (2, 20), 2, rng, "passes") != NONE).sum(1).tolist() == [7, 7]


def test_episodes_are_drawn_uniformly_and_then_their_steps() -> None:
    episodes, rng = make_buffer((2, 10, 1, 4)).episodes, np.random.default_rng(0)
    values, counts = np.unique(sample_segments(episodes, (300, 100), 2, rng, "episodes"), return_counts=True)
    share = dict(zip(values.tolist(), counts / counts.sum(), strict=True))
    assert set(share) == {0, *range(2, 11), 13, 14, 15}  # one of the first, nine of the second, none of the third
    assert share[0] == pytest.approx(1 / 3, abs=0.02)
    assert sum(share[i] for i in range(2, 11)) == pytest.approx(1 / 3, abs=0.02)
    assert max(share[i] for i in range(2, 11)) == pytest.approx(1 / 27, abs=0.01)


def test_windows_of_no_step_are_padding_alone() -> None:
    buffer = make_buffer()
    for window in (buffer.after(np.array([[3, NONE]]), 3), buffer.before(np.array([[3, NONE]]), 3)):
        assert window.real[0, 0].any()
        assert not window.real[0, 1].any()
        assert (window.where >= 0).all()


def test_no_admissible_step_is_said_with_the_remedy() -> None:
    episodes = make_buffer((1, 2, 1)).episodes
    with pytest.raises(UserError, match="imagine_from=any_frame"):
        sample_starts(episodes, (1, 1), 2, np.random.default_rng(0))


def test_only_stale_frames_are_encoded_and_the_same_in_any_order() -> None:
    lengths = (ENCODE_BATCH // 2, ENCODE_BATCH, 37)
    steps, calls = make_steps(lengths), []

    def counting(frames: torch.Tensor) -> torch.Tensor:
        assert len(frames) == ENCODE_BATCH  # one shape: a frame's tokens do not depend on its batch
        calls.append(frames)
        return encode(frames)

    grown = ReplayBuffer(sum(lengths), 8, 4, torch.device("cpu"))
    for lo, hi in ((0, 100), (100, 300), (300, sum(lengths))):
        grown.append(Steps(*(getattr(steps, f)[lo:hi] for f in ("frames", "actions", "rewards", "ends", "first"))))
        assert grown.refresh_tokens(counting) == hi - lo
    assert grown.refresh_tokens(counting) == 0
    num_calls = len(calls)
    grown.forget_tokens()
    before = grown.tokens.clone()
    assert grown.refresh_tokens(counting) == sum(lengths)
    assert len(calls) - num_calls == 2
    assert torch.equal(before, grown.tokens)
    assert torch.equal(grown.tokens.long(), encode(grown.frames))


def test_a_shard_comes_back_as_it_was(tmp_path) -> None:
    run, steps = RunFolder(tmp_path), make_steps()
    save_shard(run, 3, steps)
    loaded = load_shard(run, 3)
    for name in ("frames", "actions", "rewards", "ends", "first"):
        assert np.array_equal(getattr(steps, name), getattr(loaded, name))
        assert getattr(steps, name).dtype == getattr(loaded, name).dtype


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_shard_is_named(tmp_path, damage: str) -> None:
    run = RunFolder(tmp_path)
    save_shard(run, 3, make_steps())
    path = shard_path(run, 3)
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0x55
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    with pytest.raises(MachineError, match=r"epoch_000003\.npz.*epoch 3"):
        load_shard(run, 3)


class WritesAFile:
    """Pickled, it would run code on being read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_shard_cannot_run_code(tmp_path: Path) -> None:
    run, proof = RunFolder(tmp_path / "run"), tmp_path / "code ran"
    save_shard(run, 1, make_steps())
    with np.load(shard_path(run, 1)) as data:
        arrays = dict(data)
    arrays["actions"] = np.array([WritesAFile(proof)], dtype=object)
    np.savez(shard_path(run, 1), allow_pickle=True, **arrays)
    with pytest.raises(MachineError, match="is missing or damaged"):
        load_shard(run, 1)
    assert not proof.exists()
