"""A published agent's weights as a run folder, and a run's agent as such a file.

What comes in was not trained here: `imported.json` in the folder says so, and nobody counts it as a run of this code.
"""

from __future__ import annotations

from pathlib import Path

import torch

from remctl.config import RunConfig, config_hash, from_yaml, resolve, to_yaml
from remctl.envs import make_env
from remctl.errors import UserError
from remctl.exchange import lpips
from remctl.exchange.files import Read, Tensors, read, read_kept, write
from remctl.exchange.folders import made_whole, refuse_taken
from remctl.exchange.iris import Iris
from remctl.exchange.layout import (
    Layout,
    as_set,
    differences,
    from_file,
    refuse_other_settings,
    refuse_other_tensors,
    to_file,
)
from remctl.exchange.rem import Rem
from remctl.exchange.requests import Export, Import, Say
from remctl.games import ATARI_100K, TOYS
from remctl.runs import files
from remctl.runs.imported import record_of, write_record
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.build import build_agent
from remctl.train.loading import flat, load_agent, nested

LAYOUTS: tuple[Layout, ...] = (Rem(), Iris())
UNREAD = "imported.safetensors"  # of the file, what no network here has and an export could not make up


def import_weights(layout: Layout, asked: Import) -> None:
    """Make a run folder of a file. Raises UserError for a file that does not fit, MachineError; nothing is half-written."""
    if asked.game is None:
        raise UserError("no game given: the file does not say which it was trained on; add --game Pong")
    out = asked.out.absolute()
    refuse_taken(out)
    config = resolve(asked.game, asked.preset or layout.preset, sets=asked.sets, seed=asked.seed)
    refuse_other_settings(layout, config, f"{asked.file} cannot be read as that")
    found = read(asked.file)
    tensors = {key: t.float() if t.is_floating_point() else t for key, t in found.tensors.items()}
    _refuse_other_format(layout, tensors, asked.file)
    _refuse_other_sizes(layout, tensors, config, asked)
    ours = flat(build_agent(config, _actions(layout, tensors, config, asked.file), torch.device("cpu")).state_dict())
    names = layout.names(tensors, ours)
    links, rest = layout.links(config, ours, names), layout.rest(config, ours, names)
    refuse_other_tensors(asked.file, links, tensors, ours, rest, lpips.shaped())
    if reason := layout.refuse(tensors, ours):
        raise UserError(f"{asked.file}: {reason}")
    taken = from_file(links, tensors, ours)
    written = to_file(links, taken, layout.rest(config, taken, names))
    unread = {k: t for k, t in tensors.items() if k in rest and not _same(t, written.get(k))}
    with made_whole(out) as run:
        checkpoint.save(run, config.training.num_epochs, config_hash(config), nested(taken), {})
        if unread:
            write(run.path / UNREAD, unread)
        write_record(run, layout.name, asked.file, found.sha256, asked.command, names)
        files.write_atomic(run.config, to_yaml(config))
    _say_what_came(found, asked.say)


def export_weights(layout: Layout, asked: Export) -> None:
    """Write a run's newest agent as a file. Raises UserError for what the format cannot hold, MachineError."""
    run = RunFolder(asked.run)
    if asked.file.exists():
        raise UserError(f"{asked.file} is there already: choose another --out")
    files.refuse_target(asked.file)
    ours = flat(load_agent(run).agent)
    config = from_yaml(run.config)
    refuse_other_settings(layout, config, str(run.path))
    perceptual = lpips.cached() if asked.lpips else {}
    names, unread = _kept_of(layout, run)
    if asked.like is not None:
        names = _names_in(layout, asked.like, config, ours)
    links, rest = layout.links(config, ours, names), layout.rest(config, ours, names)
    made = to_file(links, ours, rest | {key: tensor for key, tensor in unread.items() if key in rest})
    files.make_folder(asked.file.parent)
    write(asked.file, _in_place(made, perceptual))
    if not names and layout.names(made, ours):
        asked.say(f"names that no table of {layout.name} lists are ours: --like takes those of a published file")
    if not perceptual:
        asked.say(f"{asked.file}: without LPIPS' weights, which published files have")


def _kept_of(layout: Layout, run: RunFolder) -> tuple[dict[str, str], Tensors]:
    """Names and unread tensors {key: tensor} of the file that a run came from, if that was of this format."""
    record = record_of(run) if run.is_imported else {}
    if record.get("format") != layout.name:
        return {}, {}
    return record["names"], read_kept(run.path / UNREAD)


def _names_in(layout: Layout, file: Path, config: RunConfig, ours: Tensors) -> dict[str, str]:
    """Of a published file, which must be as large as the agent."""
    tensors = read(file).tensors
    names = layout.names(tensors, ours)
    links, rest = layout.links(config, ours, names), layout.rest(config, ours, names)
    refuse_other_tensors(file, links, tensors, ours, rest, lpips.shaped())
    return names


def _in_place(made: Tensors, perceptual: Tensors) -> Tensors:
    """LPIPS' tensors {key: tensor} after those of the tokenizer."""
    of_v = {key: tensor for key, tensor in made.items() if key.startswith("tokenizer.")}
    return of_v | perceptual | {key: tensor for key, tensor in made.items() if key not in of_v}


def _same(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    """Whether two tensors (any shape) are the same bytes."""
    return b is not None and a.dtype == b.dtype and torch.equal(a, b)


# --- does it fit?


def _refuse_other_format(layout: Layout, tensors: Tensors, file: Path) -> None:
    if any(key.startswith(layout.mark) for key in tensors):
        return
    other = next((o.name for o in LAYOUTS if any(key.startswith(o.mark) for key in tensors)), None)
    hint = f"it is one of {other}: --from {other}" if other else "give one, or name its format with --from"
    raise UserError(f"{file} is no state dict of {layout.name} (no key begins with {layout.mark}): {hint}")


def _refuse_other_sizes(layout: Layout, tensors: Tensors, config: RunConfig, asked: Import) -> None:
    """A line for each key that the shapes contradict, then UserError with what to add."""
    found = differences(layout, tensors, config)
    for key, (there, here) in found.items():
        asked.say(f"{key} is {there} in {asked.file.name}, {here} here: {as_set(key, there)}")
    if found:
        sets = " ".join(as_set(key, there) for key, (there, _) in found.items())
        raise UserError(f"{asked.file} does not fit --preset {config.preset} with what was set: add {sets}")


def _actions(layout: Layout, tensors: Tensors, config: RunConfig, file: Path) -> int:
    """A of the environment. UserError, with games that fit, unless the file's actor has as many."""
    wanted, here = layout.num_actions(tensors), _num_actions(config)
    if wanted is None:
        raise UserError(f"{file}: no layer of an actor in it: give the state dict of a whole agent of {layout.name}")
    if wanted != here:
        fitting = [
            game for game in (*TOYS, *ATARI_100K) if _num_actions(config.model_copy(update={"game": game})) == wanted
        ]
        games = f"games that have: {', '.join(fitting)}" if fitting else "no game of Atari 100K has"
        raise UserError(f"{file} has {wanted} actions, {config.game} {here}; {games}")
    return here


def _num_actions(config: RunConfig) -> int:
    try:
        env = make_env(config.game, config.environment, training=False, seed=0)
    except UserError:  # a toy does not take every size of frame
        if config.game in TOYS:
            return 0
        raise
    env.close()
    return env.num_actions


def _say_what_came(found: Read, say: Say) -> None:
    if found.others:
        say(f"left out, as no part of the agent: {', '.join(found.others)}")
    types = sorted(
        {str(t.dtype).removeprefix("torch.") for t in found.tensors.values() if t.is_floating_point()} - {"float32"}
    )
    if types:
        say(f"read as float32: weights in {', '.join(types)}")
