"""Configuration: typed sections (schema), presets, how one run's comes about (resolve), is hashed (identity) and stored."""

from remctl.config.hashing import config_hash, differing, identity
from remctl.config.resolve import build, keys, one_of, resolve
from remctl.config.schema import (
    CollectionConfig,
    ControllerConfig,
    EnvironmentConfig,
    EvaluationConfig,
    ImaginationConfig,
    Precision,
    RunConfig,
    TokenizerConfig,
    TrainingPhase,
    WorldModelConfig,
)
from remctl.config.stored import from_yaml, known_hashes, to_yaml

__all__ = [
    "CollectionConfig",
    "ControllerConfig",
    "EnvironmentConfig",
    "EvaluationConfig",
    "ImaginationConfig",
    "Precision",
    "RunConfig",
    "TokenizerConfig",
    "TrainingPhase",
    "WorldModelConfig",
    "build",
    "config_hash",
    "differing",
    "from_yaml",
    "identity",
    "keys",
    "known_hashes",
    "one_of",
    "resolve",
    "to_yaml",
]
