"""The agent: tokenizer, world model with parallel observation prediction, controller."""

import warnings

with warnings.catch_warnings():  # the package compiles one function with torch.jit.script, which torch deprecates
    warnings.filterwarnings("ignore", message=".*torch.jit.script")
    import yet_another_retnet.retention  # noqa: F401
