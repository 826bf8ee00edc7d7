"""Configuration: typed sections (schema), presets, and how one run's configuration comes about (resolve)."""

from remctl.config.resolve import (
    build,
    config_hash,
    differing,
    from_yaml,
    hash_as_written,
    identity,
    keys,
    one_of,
    resolve,
    to_yaml,
)
from remctl.config.schema import (
    CollectionConfig,
    ControllerConfig,
    EnvironmentConfig,
    EvaluationConfig,
    ImaginationConfig,
    RunConfig,
    TokenizerConfig,
    TrainingPhase,
    WorldModelConfig,
)

__all__ = [
    "CollectionConfig",
    "ControllerConfig",
    "EnvironmentConfig",
    "EvaluationConfig",
    "ImaginationConfig",
    "RunConfig",
    "TokenizerConfig",
    "TrainingPhase",
    "WorldModelConfig",
    "build",
    "config_hash",
    "differing",
    "from_yaml",
    "hash_as_written",
    "identity",
    "keys",
    "one_of",
    "resolve",
    "to_yaml",
]
