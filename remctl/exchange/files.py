"""Files of tensors that others wrote: torch's and safetensors', read without running anything that is in them."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from remctl.errors import UserError, one_line
from remctl.paths import refuse_nowhere
from remctl.runs.files import named_errors, write_atomic
from remctl.train.loading import Tensors, refuse_no_numbers, safe_bytes, safe_tensors, some

SAFE = ".safetensors"
COMPONENTS = ("tokenizer", "world_model")  # every agent has them; the controller's name differs
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")  # of DataParallel, and of torch.compile


class Read(NamedTuple):
    """The state dict of a file, what else is in it by name, and the file's digest."""

    tensors: Tensors
    others: tuple[str, ...]
    sha256: str


def read(path: Path) -> Read:
    """The agent's state dict {key: tensor} in a file of torch's or of safetensors.

    It may lie in a dict, with other things next to it, and keys may have the prefixes of `DataParallel` and `torch.compile`.
    Raises UserError for what is no such file, with what is wrong, and MachineError if it cannot be read.
    """
    refuse_nowhere(path)
    if not path.is_file():
        raise UserError(f"{path}: not a regular file: give the file that the weights were saved in")
    with named_errors("reading", path):
        data = path.read_bytes()
    tensors, others = _agent_in(path, dict(_flat(_content(path, data))))
    refuse_no_numbers(path, tensors)
    return Read(tensors, others, hashlib.sha256(data).hexdigest())


def write(path: Path, tensors: Tensors) -> None:
    """Write {key: tensor} at once or not at all: for safetensors if the name ends so, else with torch.save.

    Raises MachineError.
    """
    if path.suffix == SAFE:
        write_atomic(path, safe_bytes(tensors))
        return
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_atomic(path, buffer.getvalue())


def read_kept(path: Path) -> Tensors:
    """{key: tensor} that `write` put there; none without a file. Raises MachineError, UserError if it is damaged."""
    if not path.exists():
        return {}
    with named_errors("reading", path):
        data = path.read_bytes()
    return safe_tensors(path, data)


def _content(path: Path, data: bytes) -> Any:
    if data[8:9] == b"{" and not data.startswith(b"PK"):
        return safe_tensors(path, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's, about pickles that it then refuses
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors ({_reason(error)}): refused, nothing of it ran; save only the agent's "
            "state_dict() where it was made"
        ) from None
    except Exception as error:  # a stranger's file can fail in any way inside torch's reader
        raise UserError(
            f"{path} cannot be read as tensors ({one_line(error)}): it is cut off, damaged or no such file; copy it again"
        ) from None


def _reason(error: Exception) -> str:
    found = re.search(r"(?:GLOBAL|class|function|global) ['`\"]?([\w.]+\.[\w]+)", str(error))
    return found[1] if found else "a pickle that torch.load(weights_only=True) does not take"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested dicts by its dotted name."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), value


def _agent_in(path: Path, found: Mapping[str, Any]) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors of the one agent among all that there is, and the names of the rest, as far as they have a dot."""
    bare: dict[str, Any] = {}
    for name, value in found.items():
        if (key := WRAPPERS.sub("", name)) in bare:
            raise UserError(f"{path}: {key} is there twice, with and without module. or _orig_mod.: save one of them")
        bare[key] = value
    around = [{key[: at.start()] for key in bare for at in _places(key, name)} for name in COMPONENTS]
    agents = sorted(set.intersection(*around))
    if len(agents) != 1:
        what = f"has {len(agents)} agents ({', '.join(agents)})" if agents else f"has {some(list(bare))}"
        raise UserError(
            f"{path} {what}, and is to have one, with keys that begin with {' and '.join(f'{n}.' for n in COMPONENTS)}: "
            "give the state dict of a whole agent"
        )
    prefix = agents[0]
    inside = {key.removeprefix(prefix): value for key, value in bare.items() if key.startswith(prefix)}
    strange = [key for key, value in inside.items() if not isinstance(value, Tensor)]
    if strange and prefix:
        raise UserError(f"{path}: {some(strange)} in {prefix.rstrip('.')} is no tensor: save the agent's state_dict()")
    around_it = (key.split(".")[0] for key in bare if not key.startswith(prefix))
    others = dict.fromkeys((*strange, *around_it))
    return {key: value for key, value in inside.items() if isinstance(value, Tensor)}, tuple(others)


def _places(key: str, component: str) -> Iterator[re.Match[str]]:
    return re.finditer(rf"(?:^|(?<=\.)){component}\.", key)
