"""The agent of any run folder: of a run from its checkpoints, of a bundle from agent.safetensors.

In that file a tensor is named {component}.{parameter}.
"""

from __future__ import annotations

import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from remctl.config.stored import REMEDY
from remctl.errors import UserError, one_line
from remctl.runs.bundle import read_file, verify
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.build import Agent

Tensors = dict[str, Tensor]
Components = dict[str, dict[str, Tensor]]


def load_agent(run: RunFolder) -> checkpoint.Checkpoint:
    """Return the newest agent of a run, or that of a bundle whose checksums are right, on the CPU. Changes nothing.

    Raises UserError for a run without checkpoints and a bundle of a newer format, MachineError for what is damaged.
    """
    if not run.is_bundle:
        return checkpoint.load_agent(run)
    manifest = verify(run)
    tensors = safe_tensors(run.agent, read_file(run, manifest, run.agent.name))
    return checkpoint.Checkpoint(manifest.epoch, manifest.config_hash, manifest.precisions, nested(tensors))


def load_weights(agent: Agent, weights: Components, path: Path) -> None:
    """Load weights of the run at `path`. Raises UserError if they do not fit the agent, built from its config.yaml."""
    try:
        agent.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: its weights do not fit its config.yaml ({one_line(error)}): {REMEDY}") from None


def safe_tensors(path: Path, data: bytes) -> Tensors:
    """Return {name: tensor} of the content of a safetensors file, layer 10 after layer 9: the format keeps no order.

    Raises UserError for anything else, such as a pickle, of which nothing is run.
    """
    try:
        found = safetensors.torch.load(data)
    except Exception as error:  # a stranger's file can fail in any way
        raise UserError(
            f"{path} is truncated, damaged or not a safetensors file ({one_line(error)}): copy it again"
        ) from None
    return dict(sorted(found.items(), key=lambda item: _numbers_apart(item[0])))


def safe_bytes(tensors: Tensors) -> bytes:
    """Return the content of a safetensors file of {name: tensor}."""
    # Cloned: safetensors refuses tensors that share memory.
    return safetensors.torch.save(
        {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    )


def flat(agent: Components) -> Tensors:
    """Return {component: {parameter: tensor}} as {component.parameter: tensor}."""
    return {f"{part}.{name}": tensor for part, tensors in agent.items() for name, tensor in tensors.items()}


def nested(tensors: Tensors) -> Components:
    """Return {component.parameter: tensor} as {component: {parameter: tensor}}."""
    agent: Components = {}
    for name, tensor in tensors.items():
        component, _, parameter = name.partition(".")
        agent.setdefault(component, {})[parameter] = tensor
    return agent


def _numbers_apart(key: str) -> list[tuple[int, str]]:
    """For an order in which layer 10 comes after layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", key)]
