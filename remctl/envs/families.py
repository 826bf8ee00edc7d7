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
    extra: str  # of remctl, installs `packages`
    packages: str = ""  # none: they are always there
    register: str = ""  # a function of `module` that must be called instead


FAMILIES = (
    Family("ALE/", "ale_py", ""),
    Family("MiniGrid-", "minigrid", "minigrid", "minigrid"),
    Family("BabyAI-", "minigrid", "minigrid", "minigrid"),
    Family("MinAtar/", "minatar.gym", "minatar", "MinAtar", "register_envs"),
    # This module of shimmy fails without bsuite; `shimmy` itself does not.
    Family("bsuite/", "shimmy.bsuite_compatibility", "bsuite", "bsuite shimmy"),
    Family("Vizdoom", "vizdoom.gymnasium_wrapper", "vizdoom", "vizdoom"),
)


def register(env_id: str) -> None:
    """Register the environments of the package that `env_id` belongs to, if it is one of FAMILIES.

    Raises UserError, with what to install, where the package is missing: not remctl's own name, which on PyPI is a stranger's.
    """
    family = next((f for f in FAMILIES if env_id.startswith(f.prefix)), None)
    if family is None or any(known.startswith(family.prefix) for known in gymnasium.registry):
        return
    try:
        module = importlib.import_module(family.module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"gym:{env_id}: no module {error.name!r}: pip install {family.packages} (the extra {family.extra!r})"
        ) from error
    if family.register:
        getattr(module, family.register)()
