"""`remctl eval DIR` of a bundle: are its files whole, and does its agent still play as its result.json says?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remctl.exchange.agreement import Comparison, compare, interval, stored_returns
from remctl.runner import agent_of, play_test
from remctl.runs import provenance
from remctl.runs.bundle import read_manifest, unlisted
from remctl.runs.cores import cores_here
from remctl.runs.layout import RunFolder
from remctl.runs.result import read_result
from remctl.train import threads
from remctl.train.build import Agent
from remctl.train.seeding import Randomness


def check(path: Path, episodes: int | None, device: str, seed: int | None) -> dict[str, Any]:
    """Play a bundle's final test once more, to the digit on the machine that played it; or with another seed, another one.

    `episodes`: as many as that had, by default. Returns what `remctl.runner.evaluate` returns, with `stored`, `agrees` and
    `comparison`, one line. Writes nothing. Raises MachineError for a damaged bundle, UserError.
    """
    bundle = RunFolder(path)
    result = read_result(bundle, "score", "returns")
    stored = stored_returns(result, bundle.result)
    low, high = interval(stored)
    trained_on = result["device"] if isinstance(result.get("device"), dict) else {}
    if device == "auto" and trained_on.get("type") == "cpu":
        device = "cpu"
    with agent_of(path, device) as (agent, epoch, _, reporter):
        if extra := unlisted(bundle, read_manifest(bundle)):
            reporter.log(f"note: not part of the bundle, and not read: {', '.join(extra)}")
        _use_threads_of(trained_on, agent)
        own, count = agent.config.seed, len(stored) if episodes is None else episodes
        random = Randomness(own if seed is None else seed, epoch, "final" if seed in (None, own) else "eval")
        played = play_test(agent, count, random, reporter)
    found = compare(played["returns"], stored)
    was = f"stored {result['score']:.4g} (95% interval {low:.4g} to {high:.4g}, {len(stored)} episodes)"
    return played | {
        "epoch": epoch,
        "evaluation_seed": random.seed,
        "stored": {"score": result["score"], "num_episodes": len(stored), "interval": [low, high]},
        "agrees": found.agrees,
        "comparison": f"score {played['score']:.4g} ({count} episodes), {was}: {_verdict(bundle, found)}",
    }


def _use_threads_of(device: Mapping[str, Any], agent: Agent) -> None:
    """Compute on a CPU with as many threads as the run, if there are as many cores: another number rounds sums differently."""
    number = device.get("threads")
    if agent.device.type == "cpu" and isinstance(number, int) and number > 0:
        threads.use(min(number, cores_here().most_threads))


def _verdict(bundle: RunFolder, found: Comparison) -> str:
    if found.is_same:
        return "they agree: every return is identical"
    if found.agrees:
        return f"they agree (p = {found.p:.2g}: two tests of the same agent often differ this much)"
    others = _other_versions(bundle)
    why = f"; versions differ: {', '.join(others)}" if others else ""
    return f"they do not agree (p = {found.p:.2g}: two tests of the same agent rarely differ this much){why}"


def _other_versions(bundle: RunFolder) -> list[str]:
    """Packages of which another version is installed here than where the bundle's run was made."""
    starts = provenance.starts(bundle)
    there = starts[-1].get("packages") if starts else None
    here = provenance.collect(())["packages"]
    known = {name: there[name] for name in here if there.get(name)} if isinstance(there, dict) else {}
    return [f"{name} {version} there, {here[name]} here" for name, version in known.items() if version != here[name]]
