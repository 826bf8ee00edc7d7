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

from remctl.config.arguments import Arguments
from remctl.config.combinations import impossibilities
from remctl.config.section import Section, option, required

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
    seeding: Literal["seeded", "unseeded"] = option(
        "seeded",
        "unseeded: in training, no-ops and emulator drawn from the operating system, as published; not reproducible",
        "",
        "code",
    )
    arguments: Arguments = option({}, "gym: arguments of the environment's constructor", "", "ours", before={})


class CollectionConfig(Section):
    """Acting in the real environment (Algorithm 4)."""

    initial_steps: int = option(0, "steps added to the first epoch, random actions", "agent steps", "ours", ge=0)
    steps_per_epoch: int = option(200, "agent steps per epoch", "agent steps", "code", ge=1)
    last_epoch: int = option(500, "last epoch that collects: 500 x 200 = 100,000 steps", "epochs", "Section 3", ge=1)
    epsilon: float = option(0.01, "chance of a uniform action", "", "code", ge=0, le=1)
    temperature: float = option(1.0, "temperature of the sampled policy (Freeway: 0.01)", "", "Section A.5", gt=0)
    executed_action_to_controller: bool = option(
        False,
        "under epsilon, tell C the executed action (text) instead of its own sample (code)",
        "",
        "Section A.1.2; code",
    )


class TrainingPhase(Section):
    """How one component is optimised, and in which epochs."""

    start_after_epoch: int = required("trained in epochs > this", "epochs", "code", ge=0)
    stop_after_epoch: int | None = option(None, "frozen in epochs > this; null: never", "epochs", "ours", ge=1)
    steps_per_epoch: int = required("optimisation steps per epoch", "steps", "code", ge=1)
    first_epoch_extra_steps: int = option(0, "steps added to the component's first epoch", "steps", "ours", ge=0)
    batch_size: int = required("frames (tokenizer), segments (world model) or rollouts (controller)", "", "code", ge=1)
    optimizer: Literal["adamw", "adam"] = option("adamw", "optimiser (IRIS: adam)", "", "code")
    learning_rate: float = required("learning rate", "", "code", gt=0)
    weight_decay: float = required("decoupled weight decay", "", "code", ge=0)
    gradient_clip: float = required("maximum norm of the gradient", "", "code", gt=0)


class TokenizerConfig(Section):
    """V, a VQ-VAE (Section A.1.1, Table 4)."""

    architecture: Literal["convolutional", "vqgan"] = option(
        "convolutional", "Table 4's networks, or VQGAN's residual ones with attention (IRIS)", "", "Table 4; IRIS"
    )
    grid_size: int = option(8, "codes per side: K = grid_size^2 tokens per observation", "tokens", "Section 3", ge=1)
    channels: tuple[Annotated[int, Field(ge=1)], ...] = option(
        (32, 64, 128, 256),
        "width per resolution, full size first; the last repeats for further levels",
        "",
        "Table 4",
        min_length=1,
    )
    num_res_blocks: int = option(2, "vqgan: residual blocks per resolution, one more in the decoder", "", "IRIS", ge=1)
    attention_resolutions: tuple[Annotated[int, Field(ge=1)], ...] = option(
        (8, 16), "vqgan: sizes at which attention follows each residual block", "pixels", "IRIS"
    )
    num_groups: int = option(8, "groups of GroupNorm", "", "Table 4", ge=1)
    norm_eps: float = option(1e-6, "epsilon of GroupNorm", "", "Table 4", gt=0)
    num_codes: int = option(512, "vocabulary N", "codes", "code", ge=2)
    embed_dim: int = option(256, "dimension E of a code vector", "", "Table 7", ge=1)
    codebook_init: Literal["uniform", "kmeans"] = option(
        "uniform", "uniform(-1/N, 1/N), or k-means++ of the encoder's outputs after the warm-up", "", "code; ours"
    )
    warmup: Literal["none", "fixed", "beats_median"] = option(
        "none", "first train as a plain autoencoder: for warmup_steps, or until it beats the median image", "", "ours"
    )
    warmup_steps: int = option(0, "steps of the warm-up (its limit for beats_median)", "steps", "ours", ge=0)
    warmup_margin: float = option(1.0, "beats_median: error below this times the median image's", "", "ours", gt=0)
    reconstruction: Literal["mse", "l1"] = option(
        "mse", "mean squared (code) or absolute (text) error", "", "Eq. 8; code"
    )
    perceptual: Literal["lpips", "pixel", "none"] = option(
        "lpips", "LPIPS (VGG16); pixel: 0.1 L1 + L2 + 0.01 worst pixel; none", "", "Eq. 8; Delta-IRIS"
    )
    lpips_head_dropout: bool = option(False, "dropout 0.5 before LPIPS' heads while V trains, as published", "", "code")
    codebook_weight: float = option(1.0, "weight of |e - sg h|^2", "", "Eq. 8", ge=0)
    commitment_weight: float = option(1.0, "weight of |h - sg e|^2", "", "Eq. 8", ge=0)
    training: TrainingPhase = TrainingPhase(
        start_after_epoch=5,
        steps_per_epoch=200,
        batch_size=128,
        learning_rate=1e-4,
        weight_decay=0.01,
        gradient_clip=10.0,
    )

    @property
    def tokens_per_obs(self) -> int:
        """K."""
        return self.grid_size**2


class WorldModelConfig(Section):
    """M, a RetNet with parallel observation prediction (Sections 2.2-2.4, Table 7), or IRIS' Transformer."""

    architecture: Literal["retnet", "transformer"] = option(
        "retnet",
        "RetNet, or a causal Transformer with a KV cache whose window is sequence_blocks (IRIS)",
        "",
        "Section 2.2; IRIS",
    )
    observation_prediction: Literal["pop", "token_by_token"] = option(
        "pop", "POP, or plain language modelling over the token stream (ablation No POP)", "", "Section 3.2"
    )
    observation_embeddings: Literal["tokenizer", "separate"] = option(
        "tokenizer", "V's code vectors, or a table of M's own (ablation Separate M emb.)", "", "Section 3.2"
    )
    num_layers: int = option(5, "layers L", "", "Table 7", ge=1)
    num_heads: int = option(4, "retention heads H", "", "Table 7", ge=1)
    embed_dim: int = option(256, "embedding dimension E", "", "Table 7", ge=8)
    ffn_dim: int = option(1024, "width of the feed-forward network", "", "Table 7", ge=1)
    ffn_activation: Literal["swish", "gelu"] = option("swish", "swish (code) or GELU (text)", "", "Section A.3; code")
    dropout: float = option(0.1, "dropout", "", "Table 7", ge=0, lt=1)
    layer_norm_eps: float = option(1e-6, "epsilon of LayerNorm", "", "Table 7", gt=0)
    decay: Literal["log_linear", "power_of_two"] = option(
        "log_linear", "1 - exp(linspace(log 1/32, log 1/512)) (code) or 1 - 2^(-5-i) (text)", "", "Section A.3; code"
    )
    layer_init: Literal["copies", "independent"] = option(
        "copies", "all layers start as copies of one (code), or each drawn for itself", "", "code; ours"
    )
    weight_init: Literal["default", "gpt"] = option(
        "default",
        "torch's (and the package's), or normal of deviation 0.02 with zero biases (GPT, IRIS)",
        "",
        "code; IRIS",
    )
    spare_prediction_token: bool = option(
        False, "one more prediction token that is never read, as published", "", "code"
    )
    prediction_tokens: Literal["separate", "shared"] = option(
        "separate", "a learned vector for each of the K positions, or one for all", "", "Section 2.3; shared: ours"
    )
    block_states: Literal["parallel", "sequential"] = option(
        "parallel", "states of all blocks at once or one after the other: a schedule only", "", "Eqs. 6 and 7"
    )
    blocks_per_chunk: int = option(
        3, "blocks per chunk c: a schedule only, no result depends on it", "blocks", "Table 7", ge=1
    )
    context_blocks: int = option(2, "observations that M is given before it predicts", "blocks", "Table 7", ge=1)
    sequence_blocks: int = option(10, "blocks per training segment", "blocks", "Section A.1.3; code", ge=2)
    loss_rule: Literal["published", "supervise_starts", "all_positions"] = option(
        "published",
        "published: no loss on the context. supervise_starts: also on rewards and ends of block `context`, and on "
        "everything where the segment starts an episode. all_positions: on everything but the very first token (IRIS)",
        "",
        "code; ours; IRIS",
    )
    training: TrainingPhase = TrainingPhase(
        start_after_epoch=25,
        steps_per_epoch=200,
        batch_size=64,
        learning_rate=2e-4,
        weight_decay=0.05,
        gradient_clip=100.0,
    )

    @property
    def first_predicted_block(self) -> int:
        """First block of a segment (from 0) whose observation ever carries a loss."""
        return {"published": self.context_blocks, "supervise_starts": 1, "all_positions": 0}[self.loss_rule]


class ImaginationConfig(Section):
    """Where rollouts start and how long they are (Section 2.3, Algorithm 7)."""

    horizon: int = option(10, "blocks H, real context included (code) or not (text)", "blocks", "Table 7", ge=2)
    imagined_steps: Literal["published", "text"] = option(
        "published", "observations acted on: horizon - context + 1 (code) or horizon (text)", "", "Algorithm 7; code"
    )
    last_step: Literal["unused", "used"] = option(
        "unused", "the last step's reward and end never train C (code), or do (text)", "", "Section A.1.2; code"
    )
    burn_in_frames: int = option(20, "real frames that warm C's LSTM up before a rollout", "frames", "code", ge=0)
    burn_in_actions: Literal["published", "never", "all"] = option(
        "published",
        "actions C is told during burn-in: after every (K+1)-th frame, that is never at K=64 (code), or all (text)",
        "",
        "Section A.1.2; code",
    )
    imagine_from: Literal["third_frame", "any_frame"] = option(
        "third_frame",
        "rollouts start at an episode's third frame or later (code), or anywhere (text)",
        "",
        "Algorithm 7; code",
    )
    mask_after_end: bool = option(False, "steps after an imagined end carry no weight", "", "ours")


class ControllerConfig(Section):
    """C, an actor-critic with an LSTM (Section A.1.2, Tables 5 and 6)."""

    observes: Literal["codes", "frames"] = option(
        "codes", "V's code vectors, or decoded frames through IRIS' CNN (ablation No latent-space C)", "", "Section 3.2"
    )
    action_inputs: bool = option(True, "C is told the actions it took", "", "Section A.1.2")
    conv_channels: tuple[Annotated[int, Field(ge=1)], ...] = option(
        (128, 64), "3x3 convolutions on the code grid", "", "Table 6"
    )
    hidden_dim: int = option(512, "LSTM, and the layer before it", "", "Table 6", ge=1)
    discount: float = option(0.995, "gamma", "", "Table 5", gt=0, le=1)
    lambda_: float = option(0.95, "lambda of the lambda-return", "", "Table 5", ge=0, le=1, alias="lambda")
    entropy_weight: float = option(0.001, "alpha", "", "Table 5", ge=0)
    training: TrainingPhase = TrainingPhase(
        start_after_epoch=50,
        steps_per_epoch=100,
        batch_size=128,
        learning_rate=1e-4,
        weight_decay=0.01,
        gradient_clip=3.0,
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
        "layers compiled (on CPUs if the run repays it), on CUDA steps captured as graphs; off: plain",
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
