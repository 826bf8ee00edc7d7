"""The agent's sections of the configuration: V, M, imagination and C, and how each is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from remctl.config.section import Section, option, required


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
        "width per resolution, full size first",
        "",
        "Table 4",
        min_length=1,
    )
    further_levels: Literal["doubled", "repeated"] = option(
        "doubled",
        "widths if the grid has more levels than `channels`. doubled: the encoder's width doubles at each further level, "
        "the decoder repeats its last width at full size (code); repeated: both repeat the last width at the grid",
        "",
        "code",
        before="repeated",
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
        """Return K, the tokens of one observation."""
        return self.grid_size**2

    def widths(self, frame_size: int) -> tuple[list[int], list[int]]:
        """Return the channels per resolution: the encoder's from the frame to the code grid, the decoder's back up."""
        levels = (frame_size // self.grid_size).bit_length()
        given = list(self.channels[:levels])
        more = levels - len(given)
        if self.further_levels == "repeated":
            down = given + given[-1:] * more
            return down, down[::-1]
        return given + [given[-1] << i for i in range(1, more + 1)], given[::-1] + given[:1] * more


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
        """Return the first block of a segment (from 0) whose observation can have a loss."""
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
        "actions C is told during burn-in. published: after every K-th frame, so never at K=64 (code); all (text)",
        "",
        "Section A.1.2; code",
    )
    burn_in_action_every: Literal["observation", "block"] = option(
        "observation",
        "burn_in_actions=published. observation: after every K-th frame, with a gradient into that step of C alone (code); "
        "block: after every (K+1)-th, without",
        "",
        "code",
        before="block",
    )
    imagine_from: Literal["third_frame", "any_frame"] = option(
        "third_frame",
        "rollouts start at an episode's third frame or later (code), or anywhere (text)",
        "",
        "Algorithm 7; code",
    )
    mask_after_end: bool = option(False, "steps after an imagined end have no weight in C's loss", "", "ours")


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
