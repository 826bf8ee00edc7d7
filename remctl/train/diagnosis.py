"""What is wrong with an agent, if anything: imagination against the environment, V, M and C on held-out steps.

M is judged by imagination, not by replay loss: a reward loss of 0.01 goes with a reward precision of 0.4. Any steps
will do, as test episodes (`evaluate.as_steps`) or replay; equal `random` gives equal numbers. Undefined ones (nothing
imagined, nothing real) are None, in `flat` NaN.

Shapes: B starts of a batch, S starts, H steps (`num_rewarded_steps`), F frames, K tokens per observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remctl.interfaces import ImaginationStreams, Imagined, Start
from remctl.rem.imagination import imagine, model_context, step_weights
from remctl.rem.tokenizer import ImageLoss
from remctl.replay.buffer import Episodes, ReplayBuffer, Steps
from remctl.train.build import Agent
from remctl.train.heldout import FRAME_BATCH, judge_tokenizer, judge_world_model, ratio
from remctl.train.seeding import Randomness

Diagnosis = dict[str, Any]
Arrays = dict[str, np.ndarray]
Check = Callable[[], None]

START_BATCH = 64
CONTEXTS = ("1", "2", "3+")
REWARD_SIGNS = {"-1": -1, "+1": 1}
RETURNS = ("imagined_length", "true_length", "imagined_return", "real_return")
POLICY = ("value", "policy_entropy")


@torch.no_grad()
def diagnose(
    agent: Agent, steps: Steps, image_loss: ImageLoss, random: Randomness, num_starts: int, check: Check = lambda: None
) -> Diagnosis:
    """Nested, JSON-compatible: `imagination`, `returns`, `tokenizer`, `policy`, `losses`, and what they rest on.

    imagination: M under the same actions as reality, from up to `num_starts` uniformly drawn frames; every stored frame
    is one, as its own action, reward and end are stored with it. Comparison ends where the real episode does, whatever
    M thinks. Of all imagined ends, precision is the share at whose step reality ends, recall the share of real ends
    that M imagines at their step; of rewards the same, per sign. A time limit is no end. For the starts with one or two
    real frames only, more are drawn; they count in `by_context` alone.

    returns: C acting in M (temperature 1) beside the stored steps (whoever acted in them), both over the horizon;
    where the recording is cut before, both over what there is. Lengths in steps; returns of signs, discounted.

    tokenizer: mean squared errors in [-1, 1]. losses: as in training, means over the batches.

    `check` is called between batches, and may raise to leave.
    """
    buffer = buffer_of(agent, steps)
    starts, num_drawn = choose_starts(buffer.episodes, num_starts, random.numpy("starts"))
    as_acted, acting = (random.imagination(agent.device, use) for use in ("as acted", "acting"))
    with evaluation_mode(agent, random), agent.autocast():
        buffer.refresh_tokens(agent.encode, lambda num_done: check())
        batches = np.split(starts, range(START_BATCH, len(starts), START_BATCH))
        compared = _join([compare(agent, buffer, batch, as_acted) for batch in checked(batches, check)])
        played = _join([roll_out(agent, buffer, batch, acting) for batch in checked(batches, check)])
        check()
        tokenizer, tokenizer_losses = judge_tokenizer(agent, buffer, image_loss)
        check()
        world_model_losses = judge_world_model(agent, buffer, random.numpy("segments"))
    return {
        "num_steps": len(steps),
        "num_episodes": int((buffer.episodes.before == 0).sum()),
        "num_starts": num_drawn,
        "num_starts_wanted": num_starts,
        "horizon_steps": agent.config.num_rewarded_steps,
        "imagination": summarize(compared, buffer.episodes.before[starts] + 1, num_drawn),
        "returns": {name: float(played[name][:num_drawn].mean()) for name in RETURNS},
        "tokenizer": tokenizer,
        "policy": {name: float(played[name][:num_drawn].mean()) for name in POLICY},
        "losses": {"tokenizer": tokenizer_losses, "world_model": world_model_losses},
        "gradient_clips": {name: getattr(agent.config, name).training.gradient_clip for name in agent.components},
    }


def checked(batches: Iterable[Any], check: Check) -> Iterator[Any]:
    """The batches, with a look at `check` before each."""
    for batch in batches:
        check()
        yield batch


def choose_starts(episodes: Episodes, num_starts: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Indices (n,) of different steps: some uniformly drawn, then some with 1 and 2 real frames; how many were drawn."""
    drawn = rng.permutation(len(episodes.before))[:num_starts]
    early = [rng.permutation(np.flatnonzero(episodes.before == before)) for before in (0, 1)]
    extra = [np.setdiff1d(index[: max(1, num_starts // 8)], drawn) for index in early]
    return np.concatenate([drawn, *extra]), len(drawn)


def buffer_of(agent: Agent, steps: Steps) -> ReplayBuffer:
    """On the agent's device; steps that begin within an episode are taken as one that begins there."""
    first, size = steps.first.copy(), agent.config.environment.frame_size
    first[0] = True
    buffer = ReplayBuffer(len(steps), size, agent.tokenizer.tokens_per_obs, agent.device)
    buffer.append(replace(steps, first=first))
    return buffer


@contextmanager
def evaluation_mode(agent: Agent, random: Randomness) -> Iterator[None]:
    """Evaluation mode, and torch's own generators seeded (LPIPS may have dropout); both as found afterwards."""
    found = [(m, m.training) for component in agent.components.values() for m in component.modules()]
    with torch.random.fork_rng([agent.device] if agent.device.type == "cuda" else []):
        random.seed_global("masks")
        try:
            for module, _ in found:
                module.training = False
            yield
        finally:
            for module, training in found:
                module.training = training


def _join(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(agent: Agent, buffer: ReplayBuffer, current: np.ndarray, streams: ImaginationStreams) -> Arrays:
    """M imagines from the stored steps `current` (B,), each with its context, under the actions that were taken.

    One entry per start and step (B, H). happened: reality has this step (action, reward, end). observed: tokens of the
    frame that follows, K or, where none is stored, 0; all counts and sums are 0 there too. `still` is the prediction
    that nothing changes: the start's frame, for ever. changed: tokens that differ from the previous real frame's.
    moving: pixels (times 3 channels) that do; their errors are sums of squares in [-1, 1] against V's reconstruction of
    the real frame. reward: sign.
    """
    num_steps = agent.config.num_rewarded_steps
    real = buffer.segments(current, num_steps + 1)
    start = buffer.starts(current, agent.config.imagination.burn_in_frames)
    imagined = imagine_as_acted(agent, start, real.actions[:, :-1], streams)
    happened, seen = real.real[:, :-1], real.real[:, 1:]
    # Clamped at the episode's last step, so that no frame of another one is ever looked at.
    index = current[:, None] + np.minimum(np.arange(num_steps + 1), buffer.episodes.remaining[current][:, None] - 1)
    frames = buffer.frames_at(torch.from_numpy(index).to(agent.device))
    fields = {
        "happened": happened,
        **_count_tokens(real.tokens, imagined.tokens, seen),
        **_moving_errors(frames, decode(agent, real.tokens), decode(agent, imagined.tokens), seen),
        "reward_imagined": imagined.reward.sign().long() * happened,
        "reward_real": real.rewards[:, :-1].sign().long() * happened,
        "end_imagined": imagined.end & happened,
        "end_real": real.ends[:, :-1] & happened,
    }
    return {name: field.cpu().numpy() for name, field in fields.items()}


def imagine_as_acted(agent: Agent, start: Start, actions: Tensor, streams: ImaginationStreams) -> Imagined:
    """M's sampled outcome of each of `actions` (B, H): tokens (B, H, K), reward (B, H), end (B, H)."""
    context = model_context(start, agent.config.world_model.context_blocks)
    state = agent.world_model.begin(*context, agent.tokenizer.code_vectors)
    outcomes = []
    for step in range(actions.shape[1]):
        state, imagined = agent.world_model.step(state, actions[:, step], streams)
        outcomes.append(imagined)
    return Imagined(*(torch.stack(field, dim=1) for field in zip(*outcomes, strict=True)))


def decode(agent: Agent, tokens: Tensor) -> Tensor:
    """(B, T, K) to V's frames (B, T, 3, height, width) in [-1, 1], a bounded number at a time."""
    parts = tokens.flatten(0, 1).split(FRAME_BATCH)
    with agent.autocast():
        frames = [agent.tokenizer.decode(agent.tokenizer.embed(part)).float().clamp(-1, 1) for part in parts]
    return torch.cat(frames).unflatten(0, tokens.shape[:2])


def _count_tokens(real: Tensor, imagined: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """real (B, H+1, K), the start first; imagined (B, H, K); seen (B, H)."""
    following = real[:, 1:]
    right, still_right, changed = imagined == following, real[:, :1] == following, real[:, :-1] != following
    masks = {
        "observed": torch.ones_like(right),
        "right": right,
        "still_right": still_right,
        "changed": changed,
        "changed_right": changed & right,
        "changed_still_right": changed & still_right,
    }
    return {name: (mask & seen[..., None]).sum(-1) for name, mask in masks.items()}


def _moving_errors(frames: Tensor, real: Tensor, imagined: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """frames (B, H+1, height, width, 3) uint8; V's real (B, H+1, 3, height, width) and imagined (B, H, ...)."""
    moving = (frames[:, 1:] != frames[:, :-1]).any(-1) & seen[..., None, None]

    def error(predicted: Tensor) -> Tensor:
        return ((predicted - real[:, 1:]).square().sum(2) * moving).sum((-2, -1))

    moving_error, still_error = error(imagined), error(real[:, :1])
    return {"moving": 3 * moving.sum((-2, -1)), "moving_error": moving_error, "moving_still_error": still_error}


def summarize(compared: Arrays, num_real_frames: np.ndarray, num_drawn: int) -> Diagnosis:
    """Scores of the first step, the later ones, all, each; and by the number of real frames (S,) that M was given.

    All but the last are of the first `num_drawn` starts.
    """
    drawn = _select(compared, np.s_[:num_drawn])
    groups = np.minimum(num_real_frames, len(CONTEXTS))
    return {
        "first_step": scores(_select(drawn, np.s_[:, :1])),
        "later_steps": scores(_select(drawn, np.s_[:, 1:])),
        "all_steps": scores(drawn),
        "per_step": [{"step": h + 1} | scores(_select(drawn, np.s_[:, h])) for h in range(drawn["happened"].shape[1])],
        "by_context": {
            name: {"num_starts": int((groups == n).sum())} | scores(_select(compared, groups == n))
            for n, name in enumerate(CONTEXTS, 1)
        },
    }


def _select(arrays: Arrays, where: Any) -> Arrays:
    return {name: array[where] for name, array in arrays.items()}


def scores(c: Arrays) -> Diagnosis:
    """Fractions (0 to 1), mean squared errors, and precision and recall with their counts, over all entries."""
    imagined, real = c["reward_imagined"], c["reward_real"]
    rewards = {name: precision_recall(imagined == sign, real == sign) for name, sign in REWARD_SIGNS.items()}
    return {
        "num_steps": int(c["happened"].sum()),
        "num_tokens": int(c["observed"].sum()),
        "token_accuracy": ratio(c["right"], c["observed"]),
        "token_accuracy_no_change": ratio(c["still_right"], c["observed"]),
        "token_accuracy_changed": ratio(c["changed_right"], c["changed"]),
        "token_accuracy_changed_no_change": ratio(c["changed_still_right"], c["changed"]),
        "changed_token_fraction": ratio(c["changed"], c["observed"]),
        "moving_pixel_error": ratio(c["moving_error"], c["moving"]),
        "moving_pixel_error_no_change": ratio(c["moving_still_error"], c["moving"]),
        "reward": rewards | {"any": precision_recall(imagined, real)},
        "end": precision_recall(c["end_imagined"], c["end_real"]),
    }


def precision_recall(imagined: np.ndarray, real: np.ndarray) -> Diagnosis:
    """Of bool arrays of any shape, or of signs with 0 for nothing: precision = right / imagined, recall = right / real.

    Right is an entry that both have, and with the same sign.
    """
    right = int(((imagined == real) & (real != 0)).sum())
    num_imagined, num_real = int((imagined != 0).sum()), int((real != 0).sum())
    rates = {"precision": ratio(right, num_imagined), "recall": ratio(right, num_real)}
    return rates | {"num_right": right, "num_imagined": num_imagined, "num_real": num_real}


def roll_out(agent: Agent, buffer: ReplayBuffer, current: np.ndarray, streams: ImaginationStreams) -> Arrays:
    """C acts in M from the stored steps `current` (B,). Per start (B,): RETURNS and POLICY."""
    num_steps, discount = agent.config.num_rewarded_steps, agent.config.controller.discount
    start, codes = buffer.starts(current, agent.config.imagination.burn_in_frames), agent.tokenizer.code_vectors
    path = imagine(agent.world_model, agent.controller, agent.view, start, codes, agent.config, streams)
    real = buffer.segments(current, num_steps)
    alive, powers = step_weights(path.ends), discount ** torch.arange(num_steps, device=agent.device)
    # A recording that is cut, not ended, says nothing about later steps: compare over what there is.
    known = real.real | real.ends.any(1, keepdim=True)
    log_policy = path.logits.log_softmax(-1)
    entropy = -(log_policy.exp() * log_policy).sum(-1)
    fields = {
        "imagined_length": (alive * known).sum(1),
        "true_length": real.real.float().sum(1),
        "imagined_return": (path.rewards * alive * known * powers).sum(1),
        "real_return": (real.rewards.sign() * powers).sum(1),
        "value": path.values[:, 0],
        "policy_entropy": (entropy * alive).sum(1) / alive.sum(1),
    }
    return {name: field.cpu().numpy() for name, field in fields.items()}


_TOKENS = ("token_accuracy", "token_accuracy_no_change", "token_accuracy_changed")
_PIXELS = ("moving_pixel_error", "moving_pixel_error_no_change")
_EVENTS: dict[str, tuple[str, ...]] = {"reward": ("reward", "any"), "end": ("end",)}
_EVENTS |= {"reward_positive": ("reward", "+1"), "reward_negative": ("reward", "-1")}
_RATES = {f"{name}_{rate}": (*path, rate) for name, path in _EVENTS.items() for rate in ("precision", "recall")}
_SCORES: dict[str, tuple[str, ...]] = {name: (name,) for name in _TOKENS + _PIXELS} | _RATES
_TOKENIZER = ("reconstruction_to_median_ratio", "worst_pixel_error", "code_perplexity", "used_codes")
_TOKENIZER_LOSSES = ("loss", "reconstruction_loss", "perceptual_loss", "codebook_loss", "commitment_loss")
_WORLD_MODEL_LOSSES = ("loss", "observation_loss", "reward_loss", "end_loss")
SCALARS: dict[str, tuple[str, ...]] = {
    **{f"test/{name}": ("imagination", "all_steps", *path) for name, path in _SCORES.items()},
    **{f"test/{name}_first_step": ("imagination", "first_step", *path) for name, path in _SCORES.items()},
    **{f"test/{name}": ("returns", name) for name in RETURNS},
    **{f"test/{name}": ("policy", name) for name in POLICY},
    **{f"test/{name}": ("tokenizer", name) for name in _TOKENIZER},
    **{f"test/tokenizer_{name}": ("losses", "tokenizer", name) for name in _TOKENIZER_LOSSES},
    **{f"test/world_model_{name}": ("losses", "world_model", name) for name in _WORLD_MODEL_LOSSES},
}


def flat(diagnosis: Diagnosis) -> dict[str, float]:
    """The same names for every run and epoch (SCALARS); NaN where undefined."""
    return {name: _at(diagnosis, path) for name, path in SCALARS.items()}


def _at(diagnosis: Diagnosis, path: tuple[str, ...]) -> float:
    value: Any = diagnosis
    for key in path:
        value = None if value is None else value[key]
    return float("nan" if value is None else value)
