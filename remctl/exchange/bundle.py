"""`remctl export RUN --out DIR` and `remctl import DIR`: a finished run as a bundle, and a bundle as a run folder."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from remctl.config import config_hash, from_yaml
from remctl.dream.episode import episode_video, num_shown, smaller_video
from remctl.dream.media import write_media
from remctl.envs import make_env
from remctl.errors import UserError
from remctl.exchange.agreement import stored_returns
from remctl.exchange.card import card
from remctl.exchange.folders import made_whole, refuse_taken
from remctl.exchange.private import public_start, refuse_places
from remctl.exchange.requests import Export, Import
from remctl.runner import agent_of
from remctl.runs import files, provenance
from remctl.runs.bundle import read_file, unlisted, verify, write_manifest
from remctl.runs.files import read_jsonl
from remctl.runs.imported import BUNDLE, refuse_imported
from remctl.runs.layout import RunFolder
from remctl.runs.result import read_result
from remctl.train import checkpoint
from remctl.train.evaluate import as_steps, play
from remctl.train.loading import flat, load_agent, safe_bytes
from remctl.train.seeding import Randomness
from remctl.train.testing import controller_trained

STILL, DREAM, EPISODE = "reconstructions.png", "dream.webp", "episode.webp"
MAX_BYTES, MANIFEST_BYTES = 3_000_000, 2_000
MIN_VIDEO_BYTES, MAX_VIDEO_BYTES = 60_000, 500_000
LARGE_BYTES = 500_000  # named if the whole is too large


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
    manifest, loaded = verify(given), load_agent(given)
    config = from_yaml(given.config)
    digest = hashlib.sha256(given.manifest.read_bytes()).hexdigest()
    about = {"format": BUNDLE, "file": str(asked.file.resolve()), "sha256": digest}
    with made_whole(out) as run:
        checkpoint.save(run, loaded.epoch, config_hash(config), loaded.agent, {}, precisions=loaded.precisions)
        for name in manifest.files:
            if name not in (given.agent.name, "README.md"):
                files.make_folder((run.path / name).parent)
                files.write_atomic(run.path / name, read_file(given, manifest, name))
        provenance.append(run, provenance.collect(asked.command) | {"imported": about})
        files.write_json(run.imported, about | {"time": datetime.now(UTC).isoformat(timespec="seconds"), "names": {}})
    if extra := unlisted(given, manifest):
        asked.say(f"left out, as no part of the bundle: {', '.join(extra)}")


def _write_bundle(run: RunFolder, bundle: RunFolder) -> None:
    loaded, config = load_agent(run), from_yaml(run.config)
    starts = [public_start(entry) for entry in provenance.starts(run)]
    tensors = flat(loaded.agent)
    texts = {p.name: p.read_text(encoding="utf-8") for p in (run.config, run.result, run.metrics, run.episodes)}
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


def _write_pictures(run: RunFolder, bundle: RunFolder) -> None:
    """The run's own, or if they are gone new ones, and a video of its first test episodes, which are played once more."""
    files.make_folder(bundle.media)
    finals = [entry for entry in read_jsonl(run.episodes) if entry.get("kind") == "final"]
    count = num_shown([entry["length_steps"] for entry in finals])
    with agent_of(run.path, "cpu") as (agent, epoch, _, reporter):
        game, environment = agent.config.game, agent.config.environment
        with reporter.counting("episodes", count) as advance:
            random, trained = Randomness(agent.config.seed, epoch, "final"), controller_trained(agent.config, epoch)
            steps = as_steps(play(agent, count, random, advance, trained, num_kept=count))
        env = make_env(game, environment, training=False, seed=0)
        env.close()
        names = env.action_names
        if not all((run.media / name).is_file() for name in (STILL, DREAM)):
            write_media(agent, steps, bundle.media, Randomness(agent.config.seed, epoch, "media"), names, game)
    source = bundle.media if (bundle.media / DREAM).is_file() else run.media
    with files.named_errors("reading", source):
        still, dream = ((source / name).read_bytes() for name in (STILL, DREAM))
    files.write_atomic(bundle.media / STILL, still)
    left = (MAX_BYTES - _size(bundle) - MANIFEST_BYTES) // 2
    most = min(max(left, MIN_VIDEO_BYTES), MAX_VIDEO_BYTES)
    files.write_atomic(bundle.media / DREAM, smaller_video(dream, most))
    files.write_atomic(bundle.media / EPISODE, episode_video(steps, names, game, most))


def _size(bundle: RunFolder) -> int:
    return sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())


def _say_size(bundle: RunFolder, asked: Export) -> None:
    """A line if it is too large for git."""
    sizes = {str(p.relative_to(bundle.path)): p.stat().st_size for p in bundle.path.rglob("*") if p.is_file()}
    if sum(sizes.values()) > MAX_BYTES:
        large = [f"{name} {size / 1e6:.1f} MB" for name, size in sorted(sizes.items()) if size > LARGE_BYTES]
        asked.say(f"{asked.file} takes {sum(sizes.values()) / 1e6:.1f} MB, much for git: {', '.join(large)}")
