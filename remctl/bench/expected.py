"""How long a run takes by its operations, before anything of it has been measured. Imports no torch.

A step of a component takes its operations times the seconds of one, and its FLOPs at a rate; both are those of a reference
that was measured in full size, so that a variant is as much slower as it computes more (docs/cost-model.md, "Hours").
Good to a factor of about two; measured epochs are better (`remctl.sweep.hours`).
"""

from __future__ import annotations

import csv
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

from remctl.bench.cost import Cost, CostModel, total
from remctl.config import RunConfig, TokenizerConfig, resolve
from remctl.games import kind
from remctl.train.remaining import COLLECT, ENCODE, FINAL, TEST, TRAINED, WARM_UP, work_left

TRAINING = 3  # a product has two more as its gradient
VGG16 = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)  # LPIPS' network: Simonyan et al. 2015
LPIPS_PASSES = 3  # both pictures, and the gradient with respect to one
IRIS_CNN = (3, 32, 32, 64, 64)
ENV_STEP_S = {"toy": 5e-5, "atari": 2e-3, "gym": 2e-3}  # emulator, and two resizes
EPISODE_STEPS = {"toy": 30, "atari": 1000, "gym": 500}  # assumed: how long a game lasts depends on how it is played


class Work(NamedTuple):
    """Of one step: floating-point operations, and operations that are launched one after the other."""

    flops: float
    operations: float = 0.0


class Rates(NamedTuple):
    """FLOPs per second of each component, and seconds of an operation that is not one long product."""

    tokenizer: float
    world_model: float
    controller: float
    operation_s: float
    source: str

    def seconds(self, component: str, work: Work) -> float:
        """Of a step of a component."""
        return work.flops / float(getattr(self, component)) + work.operations * self.operation_s


# One core of an AMD EPYC with AVX-512: single steps of the paper's agent in fp32, batches of 16 (M 486 GFLOP in 9.07 s; the
# rollout 149 GFLOP, 1,808 operations in 2.53 s with POP, 101 GFLOP, 74,218 operations in 6.08 s without); in bf16 by the
# steps of docs/performance-log.md, on two cores.
CPU_CORE = {
    "fp32": Rates(7.0e10, 5.4e10, 6.2e10, 6e-5, "one core of an AMD EPYC, fp32"),
    "bf16": Rates(2.8e11, 2.5e11, 2.0e11, 6e-5, "one core of an AMD EPYC, bf16"),
}


def cpu(precision: str, cores: float) -> Rates:
    """A processor of so many cores, each like the reference's."""
    core = CPU_CORE[precision]
    source = f"{cores:g} cores, each like {core.source}"
    return Rates(core.tokenizer * cores, core.world_model * cores, core.controller * cores, core.operation_s, source)


@cache
def published_gpu() -> Rates:
    """The RTX 4090 of the paper's Section 3: epochs of REM, and of IRIS with REM's configuration.

    Both together tell the seconds of an operation from those of arithmetic, since IRIS' rollouts are launched token by token.
    """
    text = (files("remctl") / "data" / "epoch_times.csv").read_text(encoding="utf-8")
    seconds = {(row["agent"], row["configuration"]): row for row in csv.DictReader(text.splitlines())}
    rem, iris = seconds["REM", "as published"], seconds["IRIS", "with REM's configuration"]
    a, b = (_published_work(preset) for preset in ("paper", "iris-rem"))
    t_a, t_b = float(rem["actor_critic_s"]), float(iris["actor_critic_s"])
    c, d = a["controller"], b["controller"]
    # t = flops / rate + operations x operation_s, for both agents
    operation_s = (t_b * c.flops - t_a * d.flops) / (d.operations * c.flops - c.operations * d.flops)
    rate = c.flops / (t_a - c.operations * operation_s)
    v, m = a["tokenizer"].flops / float(rem["tokenizer_s"]), a["world_model"].flops / float(rem["world_model_s"])
    return Rates(v, m, rate, operation_s, "the published epochs on an RTX 4090")


def _published_work(preset: str) -> dict[str, Work]:
    """Of an epoch in which everything is trained."""
    config = resolve("Pong", preset)
    steps = {name: getattr(config, name).training.steps_per_epoch for name in TRAINED}
    return {name: Work(steps[name] * w.flops, steps[name] * w.operations) for name, w in step_work(config).items()}


@lru_cache(maxsize=1024)  # asked for again and again while one watches
def run_s(config: RunConfig, rates: Rates, epochs_done: int = 0) -> float:
    """Seconds of what is left of a run after `epochs_done` epochs: training, encoding, acting and tests."""
    left, steps, family = work_left(config, epochs_done), step_work(config), kind(config.game)
    seconds = sum(left[loop] * rates.seconds(name, steps[name]) for name, loop in TRAINED.items())
    seconds += left[WARM_UP] * rates.seconds("tokenizer", steps["tokenizer"])
    encode_s = encoder_flops(config.tokenizer, config.environment.frame_size) / rates.tokenizer
    act_s = ENV_STEP_S[family] + encode_s + observe_flops(config) / rates.controller
    acted = left[COLLECT] + (left[TEST] + left[FINAL]) * EPISODE_STEPS[family]
    return float(seconds + left[ENCODE] * encode_s + acted * act_s)


def step_work(config: RunConfig) -> dict[str, Work]:
    """A training step of each component, with its whole batch."""
    config = config.at_precision("fp32")  # which precision is of no matter for a count
    model, size = CostModel(config), config.environment.frame_size
    v, m, c = (getattr(config, name).training.batch_size for name in TRAINED)
    encoder, decoder = encoder_flops(config.tokenizer, size), decoder_flops(config.tokenizer, size)
    loss = LPIPS_PASSES * lpips_flops(size) * (config.tokenizer.perceptual == "lpips")
    rollout = model.imagination(c)
    seen = config.num_rewarded_steps + 1
    frames = decoder * seen * (config.controller.observes == "frames")
    observed = (TRAINING * seen + config.imagination.burn_in_frames) * observe_flops(config)
    return {
        "tokenizer": Work(v * (TRAINING * (encoder + decoder) + loss)),
        "world_model": Work(total(model.training(m)).flops),
        "controller": Work(total(rollout).flops + c * (frames + observed), _operations(rollout)),
    }


def _operations(parts: list[Cost]) -> float:
    return sum(part.operations or 0 for part in parts)  # None: one call of IRIS, of hundreds


def convolution_flops(c_in: int, c_out: int, size: int, kernel: int = 3) -> float:
    """Of one picture of size x size, as many out as in."""
    return 2.0 * kernel**2 * c_in * c_out * size**2


def encoder_flops(v: TokenizerConfig, frame_size: int) -> float:
    """Of one frame to tokens."""
    down, up = v.widths(frame_size)
    levels = [(width, frame_size >> i) for i, width in enumerate(down)]
    quantized = 2.0 * v.tokens_per_obs * v.embed_dim * (up[0] + v.num_codes)
    ends = convolution_flops(3, down[0], frame_size) + convolution_flops(down[-1], up[0], v.grid_size)
    return ends + quantized + _between(levels) + _residual(v, levels, v.num_res_blocks)


def decoder_flops(v: TokenizerConfig, frame_size: int) -> float:
    """Of code vectors to one frame."""
    _, up = v.widths(frame_size)
    levels = [(width, v.grid_size << i) for i, width in enumerate(up)]
    ends = convolution_flops(up[-1], 3, frame_size) + convolution_flops(up[0], up[0], v.grid_size)
    back = [(width, 2 * side) for width, side in levels]  # convolutions follow the enlargement
    quantized = 2.0 * v.tokens_per_obs * v.embed_dim * up[0]
    return ends + quantized + _between(back) + _residual(v, levels, v.num_res_blocks + 1)


def _between(levels: list[tuple[int, int]]) -> float:
    """Two convolutions of each step from one resolution to the next, at the latter's size."""
    return sum(
        convolution_flops(a, b, min(size, other)) + convolution_flops(b, b, min(size, other))
        for (a, other), (b, size) in pairwise(levels)
    )


def _residual(v: TokenizerConfig, levels: list[tuple[int, int]], count: int) -> float:
    """VQGAN's residual blocks of two convolutions; none in the paper's networks."""
    return (v.architecture == "vqgan") * sum(2 * count * convolution_flops(c, c, side) for c, side in levels)


def lpips_flops(frame_size: int) -> float:
    """Of VGG16's convolutions on one frame."""
    flops, width = 0.0, 3
    for i, block in enumerate(VGG16):
        for out in block:
            flops += convolution_flops(width, out, frame_size >> i)
            width = out
    return flops


def observe_flops(config: RunConfig) -> float:
    """C's look at one observation: convolutions, a linear layer, the LSTM."""
    c, side = config.controller, config.tokenizer.grid_size
    if c.observes == "frames":
        size, inside = config.environment.frame_size, IRIS_CNN[-1] * (config.environment.frame_size // 16) ** 2
        convolutions = sum(convolution_flops(a, b, size >> i) for i, (a, b) in enumerate(pairwise(IRIS_CNN)))
        return convolutions + 8.0 * c.hidden_dim * (inside + c.hidden_dim)
    widths = (config.tokenizer.embed_dim, *c.conv_channels)
    convolutions = sum(convolution_flops(a, b, side) for a, b in pairwise(widths))
    return convolutions + 2.0 * widths[-1] * side**2 * c.hidden_dim + 16.0 * c.hidden_dim**2
