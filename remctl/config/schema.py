"""Every number of REM as a typed, frozen field: meaning, unit, source.

Defaults are the published agent's (preset `paper`). "code" in a source means the published code where the paper's
text says something else or nothing; the text's side is then selectable (preset `paper-text`). "IRIS" is the baseline
(Micheli et al. 2023, preset `iris`). Counts start with `num_`; durations end in their unit. Derived values are properties
and never configured.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from remctl.config.agent import ControllerConfig, ImaginationConfig, TokenizerConfig, WorldModelConfig
from remctl.config.arguments import Arguments
from remctl.config.combinations import impossibilities
from remctl.config.section import Section, option

Precision = Literal["bf16", "fp32"]
MAX_THREADS = 1024


class EnvironmentConfig(Section):
    """The Atari 100K protocol as REM and IRIS run it (raw frames are the emulator's, 60 per second)."""

    frame_skip: int = option(
        4, "raw frames per agent step; the last two are max-pooled", "raw frames", "Section 3", ge=1
    )
    frame_size: int = option(64, "height and width of an observation", "pixels", "Table 4", ge=8)
    sticky_probability: float = option(0.0, "chance that the emulator repeats the last action", "", "code", ge=0, lt=1)
    full_action_space: bool = option(False, "all 18 actions instead of the game's minimal set", "", "code")
    max_noops_train: int = option(30, "no-ops after a reset in training: uniform 1..this", "raw frames", "code", ge=1)
    noops_test: int = option(1, "no-ops after a reset in test", "raw frames", "code", ge=0)
    time_limit_train_frames: int = option(20_000, "truncation in training", "raw frames", "code", ge=4)
    time_limit_test_frames: int = option(108_000, "truncation in test", "raw frames", "code", ge=4)
    end_on_life_loss: bool = option(True, "a lost life ends the episode (training only)", "", "code")
    late_game_over: bool = option(
        True,
        "a game over on the last raw frame of a step is noticed one step late, at which nothing happens any more (code); "
        "false: at once",
        "",
        "code",
        before=False,
    )
    dead_starts: bool = option(
        True,
        "a game that ends during the no-op after a lost life is left by an episode of one step (code); false: a new game",
        "",
        "code",
        before=False,
    )
    time_limit_ends: bool = option(
        True,
        "in training, the time limit is stored as an end of the episode (code); false: the episode is cut off unended",
        "",
        "code",
        before=False,
    )
    seeding: Literal["seeded", "unseeded"] = option(
        "seeded",
        "unseeded: in training, no-ops and emulator drawn from the operating system, as published; not reproducible",
        "",
        "code",
    )
    enlarge: Literal["bilinear", "nearest"] = option(
        "bilinear", "gym: how a picture smaller than frame_size is enlarged", "", "ours", before="bilinear"
    )
    arguments: Arguments = option({}, "gym: arguments of the environment's constructor", "", "ours", before={})


class CollectionConfig(Section):
    """Acting in the real environment (Algorithm 4)."""

    initial_steps: int = option(
        0, "steps added to the first epoch; who acts in them: collection.untrained_policy", "agent steps", "ours", ge=0
    )
    steps_per_epoch: int = option(200, "agent steps per epoch", "agent steps", "code", ge=1)
    last_epoch: int = option(500, "last epoch that collects: 500 x 200 = 100,000 steps", "epochs", "Section 3", ge=1)
    untrained_policy: Literal["controller", "uniform"] = option(
        "controller",
        "who acts before C is first trained: C as it was initialised (code), or uniformly random actions",
        "",
        "code",
        before="uniform",
    )
    controller_memory: Literal["burned_in", "carried"] = option(
        "burned_in",
        "what C knows of a running episode when an epoch begins: its last imagination.burn_in_frames stored frames, seen "
        "anew without their actions (code), or all that it was told",
        "",
        "code",
        before="carried",
    )
    epsilon: float = option(0.01, "chance of a uniform action", "", "code", ge=0, le=1)
    temperature: float = option(1.0, "temperature of the sampled policy (Freeway: 0.01)", "", "Section A.5", gt=0)
    executed_action_to_controller: bool = option(
        False,
        "under epsilon, tell C the executed action (text) instead of its own sample (code)",
        "",
        "Section A.1.2; code",
    )


class EvaluationConfig(Section):
    """Test episodes: epsilon 0, no life-loss ends, sampled at the test temperature."""

    every_epochs: int = option(10, "a test every this many epochs", "epochs", "code", ge=1)
    num_episodes: int = option(16, "episodes per test", "episodes", "code", ge=1)
    num_envs: int = option(8, "environments side by side", "", "code", ge=1)
    final_episodes: int = option(100, "episodes at the end; their mean is the score", "episodes", "Section 3.1", ge=1)
    temperature: float = option(0.5, "temperature of the sampled policy", "", "code", gt=0)
    diagnosis_starts: int = option(64, "starting points of the imagination-against-reality diagnosis", "", "ours", ge=1)


class TrainingConfig(Section):
    """The cycle (Algorithm 3)."""

    num_epochs: int = option(600, "epochs", "epochs", "code", ge=1)
    sampling: Literal["passes", "steps", "episodes"] = option(
        "passes",
        "how batches are drawn from what is stored: passes without replacement, the last batch of a pass short (code); steps, "
        "uniformly; episodes, uniformly, and then their steps (IRIS)",
        "",
        "code; IRIS",
        before="steps",
    )
    matmul_precision: Literal["medium", "high", "highest"] = option(
        "medium", "torch's fp32 matmul precision", "", "ours"
    )
    random_streams: Literal["named", "shared"] = option(
        "named",
        "named: everything random has a stream of its own, by component and purpose, so that variants of one seed share what "
        "neither changes. shared: runs of version 0.1.0, which can be reported but not trained",
        "",
        "ours",
        before="shared",
    )


class RuntimeConfig(Section):
    """How a run is executed. Not part of a run's identity: results depend on it in rounding and in dropout's masks at most."""

    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto",
        "of linears, convolutions, retention and LPIPS' deep levels; tables, carried states, C's heads and losses stay fp32. "
        "auto: bf16 where the device computes it natively, else fp32; a run that resumes keeps its first start's",
        "",
        "ours",
    )
    compile: Literal["auto", "off"] = option(
        "auto",
        "layers compiled (on CPUs if a trial of one says that the run repays it), on CUDA steps captured; off: plain",
        "",
        "ours",
    )
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = option((), "extra metric sinks", "", "ours")
    overlap_tests: Literal["auto", "on", "off"] = option(
        "auto", "a process of its own tests an epoch while the next ones train; auto: on GPUs", "", "ours"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_THREADS)] = option(
        "auto", "CPU threads; auto: at the first start as many as cores are free, later the same number", "", "ours"
    )

    @field_validator("threads", mode="before")
    @classmethod
    def _auto_or_a_number(cls, value: object) -> object:
        if value != "auto" and (type(value) is not int or not 1 <= value <= MAX_THREADS):
            raise PydanticCustomError("threads", "Input should be 'auto' or a whole number from 1 to 1024")
        return value


class RunConfig(Section):
    """One run. `preset` and `variant` are labels; `config_hash` covers the rest, except `runtime`, as far as it has an effect
    and differs from what the program did before a key existed."""

    preset: str = option("paper", "label: the preset this was resolved from")
    variant: str = option("rem", "label: the variant this was resolved from")
    game: str = option("Pong", "one of the 26 games, any other ALE game, Catch, or gym:ID", "", "Table 1")
    seed: int = option(0, "seeds everything", "", "", ge=0, lt=2**31)
    environment: EnvironmentConfig = EnvironmentConfig()
    collection: CollectionConfig = CollectionConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    world_model: WorldModelConfig = WorldModelConfig()
    imagination: ImaginationConfig = ImaginationConfig()
    controller: ControllerConfig = ControllerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    training: TrainingConfig = TrainingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def at_precision(self, precision: Precision) -> RunConfig:
        """The same run, computed in `precision`."""
        runtime = self.runtime.model_copy(update={"precision": precision})
        return self.model_copy(update={"runtime": runtime})

    @property
    def num_imagined_steps(self) -> int:
        """Observations acted on in a rollout (published: 9)."""
        if self.imagination.imagined_steps == "text":
            return self.imagination.horizon
        return self.imagination.horizon - self.world_model.context_blocks + 1

    @property
    def num_rewarded_steps(self) -> int:
        """World-model steps per rollout: those whose reward trains C (published: 8)."""
        return self.num_imagined_steps - (self.imagination.last_step == "unused")

    @property
    def min_segment_blocks(self) -> int:
        """Real blocks a training segment needs at least."""
        context = self.world_model.context_blocks
        return {"published": context + 1, "supervise_starts": context, "all_positions": 1}[self.world_model.loss_rule]

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        for problem in impossibilities(self):
            raise ValueError(problem)
        return self
