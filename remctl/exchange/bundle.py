"""`remctl export RUN --out DIR` and `remctl import DIR`: a finished run as a bundle, and a bundle as a run folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from remctl.config import config_hash, from_yaml
from remctl.dream.small import dream_video, episode_video, num_episodes_shown, reconstructions_png
from remctl.envs import make_env
from remctl.errors import MachineError, UserError
from remctl.exchange.agreement import stored_returns
from remctl.exchange.card import card
from remctl.exchange.folders import made_whole, refuse_taken
from remctl.exchange.private import public_start, refuse_places
from remctl.exchange.requests import Export, Import
from remctl.runner import agent_of
from remctl.runs import files, provenance
from remctl.runs.bundle import read_file, read_manifest, unlisted, write_manifest
from remctl.runs.files import read_jsonl
from remctl.runs.imported import BUNDLE, refuse_imported, write_record
from remctl.runs.layout import RunFolder
from remctl.runs.result import read_result
from remctl.train import checkpoint
from remctl.train.evaluate import as_steps, play
from remctl.train.loading import flat, load_agent, safe_bytes
from remctl.train.restoring import refuse_other_hash
from remctl.train.seeding import Randomness
from remctl.train.testing import controller_trained

OF_A_RUN = ("config.yaml", "result.json", "provenance.json", "metrics.jsonl", "episodes.jsonl")
MAX_BYTES, MANIFEST_BYTES = 3_000_000, 2_000
MIN_VIDEO_BYTES, MAX_VIDEO_BYTES = 100_000, 500_000


def export_bundle(asked: Export) -> None:
    """Write a finished run as a bundle, at once or not at all. Raises UserError for one that is not finished, MachineError."""
    run, out = RunFolder(asked.run), asked.file.absolute()
    if asked.like is not None or not asked.lpips:
        raise UserError("--like and --without-lpips are of the authors' formats: add --format rem or --format iris")
    refuse_imported(run, "only a run that was trained here becomes a bundle")
    if not run.is_done:
        raise UserError(f"{run.path} is not finished: a bundle holds its final score; run the same train command again")
    refuse_taken(out)
    stored_returns(read_result(run, "score", "returns", "num_episodes"), run.result)
    with made_whole(out) as bundle:
        _write_bundle(run, bundle)
    _say_size(RunFolder(out), asked)


def import_bundle(asked: Import) -> None:
    """Make a run folder of a bundle. Raises UserError, and MachineError for a damaged one; nothing is half-written."""
    given, out = RunFolder(asked.file), asked.out.absolute()
    if not given.is_bundle:
        raise UserError(f"{asked.file}: no bundle.json in it: give a folder that `remctl export RUN --out DIR` wrote")
    refuse_taken(out)
    manifest, loaded = read_manifest(given), load_agent(given)
    config = from_yaml(given.config)
    digest = hashlib.sha256(given.manifest.read_bytes()).hexdigest()
    with made_whole(out) as run:
        checkpoint.save(run, loaded.epoch, config_hash(config), loaded.agent, {}, precisions=loaded.precisions)
        for name in manifest.files:
            if name in OF_A_RUN or name.startswith("media/"):
                files.make_folder((run.path / name).parent)
                files.write_atomic(run.path / name, read_file(given, manifest, name))
        write_record(run, BUNDLE, asked.file.resolve(), digest, asked.command)
    if extra := unlisted(given, manifest):
        asked.say(f"left out, as no part of the bundle: {', '.join(extra)}")


def _write_bundle(run: RunFolder, bundle: RunFolder) -> None:
    loaded, config = load_agent(run), from_yaml(run.config)
    refuse_other_hash(run, loaded.config_hash, config)
    if loaded.epoch != config.training.num_epochs:
        raise MachineError(f"{run.path}: the agent of its last epoch is lost: restore {run.checkpoints} from a copy")
    starts = [public_start(entry) for entry in provenance.starts(run)]
    tensors = flat(loaded.agent)
    texts = {path.name: _text(path) for path in (run.config, run.result, run.metrics, run.episodes)}
    texts["provenance.json"] = json.dumps(files.finite(starts), indent=2) + "\n"
    texts["README.md"] = card(
        config, json.loads(texts["result.json"]), starts, sum(t.numel() for t in tensors.values())
    )
    refuse_places(texts, run.path.resolve())
    for name, text in texts.items():
        files.write_atomic(bundle.path / name, text)
    files.write_atomic(bundle.agent, safe_bytes(tensors))
    _write_pictures(run, bundle)
    write_manifest(bundle, loaded.epoch, config_hash(config), loaded.precisions)


def _text(path: Path) -> str:
    with files.named_errors("reading", path):
        data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MachineError(f"{path} is damaged ({error}): restore it from a copy") from error


def _write_pictures(run: RunFolder, bundle: RunFolder) -> None:
    """Draw them from the first test episodes, which are played once more."""
    files.make_folder(bundle.media)
    finals = [entry for entry in read_jsonl(run.episodes) if entry.get("kind") == "final"]
    count = num_episodes_shown([entry.get("length_steps", 0) for entry in finals])
    with agent_of(run.path, "auto") as (agent, epoch, _, reporter):
        config, seed_and_epoch = agent.config, (agent.config.seed, epoch)
        with reporter.counting("episodes", count) as advance:
            trained = controller_trained(config, epoch)
            steps = as_steps(play(agent, count, Randomness(*seed_and_epoch, "final"), advance, trained, num_kept=count))
        env = make_env(config.game, config.environment, training=False, seed=0)
        env.close()
        with reporter.doing("drawing"):
            random, names, game = Randomness(*seed_and_epoch, "media"), env.action_names, config.game
            files.write_atomic(bundle.media / "reconstructions.png", reconstructions_png(agent, steps, random, game))
            files.write_atomic(bundle.media / "episode.webp", episode_video(steps, names, _left(bundle) // 2))
            dream = dream_video(agent, steps, random, names, game, _left(bundle))
            files.write_atomic(bundle.media / "dream.webp", dream)


def _left(bundle: RunFolder) -> int:
    """Bytes that a video may take; some if there are none left."""
    return min(max(MAX_BYTES - MANIFEST_BYTES - sum(_sizes(bundle).values()), MIN_VIDEO_BYTES), MAX_VIDEO_BYTES)


def _sizes(bundle: RunFolder) -> dict[str, int]:
    return {name: (bundle.path / name).stat().st_size for name in files.names_below(bundle.path)}


def _say_size(bundle: RunFolder, asked: Export) -> None:
    """A line if it is too large for git."""
    sizes = _sizes(bundle)
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: sizes[name])[:-4:-1]
        named = ", ".join(f"{name} {sizes[name] / 1e6:.1f} MB" for name in largest)
        asked.say(f"{asked.file} is {total / 1e6:.1f} MB, large for git; its largest files: {named}")
