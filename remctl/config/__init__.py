"""Configuration: typed sections (schema), presets, resolve, hashing, effects, and config.yaml on disk (stored)."""

from remctl.config.agent import (
    ControllerConfig,
    ImaginationConfig,
    TokenizerConfig,
    TrainingPhase,
    WorldModelConfig,
)
from remctl.config.hashing import config_hash, differing, identity
from remctl.config.resolve import build, keys, one_of, resolve
from remctl.config.schema import (
    CollectionConfig,
    EnvironmentConfig,
    EvaluationConfig,
    Precision,
    RunConfig,
)
from remctl.config.stored import (
    from_yaml,
    is_published_environment,
    known_hashes,
    precision_of_schema_1,
    same_run,
    to_yaml,
    why_not_trained,
)

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
    "is_published_environment",
    "keys",
    "known_hashes",
    "one_of",
    "precision_of_schema_1",
    "resolve",
    "same_run",
    "to_yaml",
    "why_not_trained",
]
