"""Packages whose environments Gymnasium does not know until somebody asks for them, and the extras that install them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import gymnasium

from remctl.errors import UserError


@dataclass(frozen=True)
class Family:
    """Environments of one package: their ids begin with `prefix`, and importing `module` registers them."""

    prefix: str
    module: str
    extra: str | None  # of remctl, installs the package; None: it is always there
    register: str | None = None  # a function of `module` that must be called instead


FAMILIES = (
    Family("ALE/", "ale_py", None),
    Family("MiniGrid-", "minigrid", "minigrid"),
    Family("BabyAI-", "minigrid", "minigrid"),
    Family("MinAtar/", "minatar.gym", "minatar", "register_envs"),
    Family("bsuite/", "shimmy.bsuite_compatibility", "bsuite"),  # fails without bsuite; `shimmy` itself does not
    Family("Vizdoom", "vizdoom.gymnasium_wrapper", "vizdoom"),
)


def register(env_id: str) -> None:
    """Register the environments of the package that `env_id` belongs to, if it is one of FAMILIES.

    Raises UserError, with the extra to install, where the package is missing.
    """
    family = next((f for f in FAMILIES if env_id.startswith(f.prefix)), None)
    if family is None or any(known.startswith(family.prefix) for known in gymnasium.registry):
        return
    try:
        module = importlib.import_module(family.module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"gym:{env_id}: no module {error.name!r}: pip install 'remctl[{family.extra}]', from a clone '.[{family.extra}]'"
        ) from error
    if family.register:
        getattr(module, family.register)()
