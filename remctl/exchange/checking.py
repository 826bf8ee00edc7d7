"""`remctl eval DIR` of a bundle: are its files whole, and does its agent still play as its result.json says?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remctl.exchange.agreement import Comparison, compare, interval, stored_returns
from remctl.runner import agent_of, describe_device, describe_run
from remctl.runs import provenance
from remctl.runs.bundle import unlisted, verify
from remctl.runs.cores import cores_here
from remctl.runs.layout import RunFolder
from remctl.runs.result import read_result
from remctl.train import threads
from remctl.train.evaluate import play
from remctl.train.seeding import Randomness
from remctl.train.testing import controller_trained


def check(path: Path, episodes: int | None, device: str, seed: int | None) -> dict[str, Any]:
    """Play a bundle's final test once more, to the digit on the machine that played it; or with another seed, another one.

    `episodes`: as many as that had, by default. Returns what `remctl.runner.evaluate` returns, with `stored`, `agrees` (None:
    too few episodes to tell) and `comparison`, one line. Writes nothing. Raises MachineError for a damaged bundle, UserError.
    """
    bundle = RunFolder(path)
    result = read_result(bundle, "score", "returns")
    stored = stored_returns(result, bundle.result)
    low, high = interval(stored)
    about = result.get("device")
    there: dict[str, Any] = about if isinstance(about, dict) else {}
    if device == "auto" and there.get("type") == "cpu":
        device = "cpu"
    with agent_of(path, device) as (agent, epoch, _, reporter):
        if extra := unlisted(bundle, verify(bundle)):
            reporter.log(f"note: not part of the bundle, and not read: {', '.join(extra)}")
        number = there.get("threads")
        if agent.device.type == "cpu" and isinstance(number, int) and number > 0:
            threads.use(min(number, cores_here().most_threads))  # with another number sums are rounded differently
        config, count = agent.config, len(stored) if episodes is None else episodes
        final = seed is None or seed == config.seed
        random = Randomness(config.seed if seed is None else seed, epoch, "final" if final else "eval")
        with reporter.counting("episodes", count) as advance:
            played = describe_run(config, play(agent, count, random, advance, controller_trained(config, epoch)))
        here = describe_device(agent.device, config.runtime.precision)
    found = compare(played["returns"], stored)
    was = f"stored {result['score']:.4g} (95% interval {low:.4g} to {high:.4g}, {len(stored)} episodes)"
    return played | {
        "device": here,
        "epoch": epoch,
        "evaluation_seed": random.seed,
        "stored": {"score": result["score"], "num_episodes": len(stored), "interval": [low, high]},
        "agrees": found.agrees,
        "comparison": f"score {played['score']:.4g} ({count} episodes), {was}: {_verdict(bundle, found)}",
    }


def _verdict(bundle: RunFolder, found: Comparison) -> str:
    if found.is_same:
        return "they agree, every return is the stored one"
    if found.agrees is None:
        return f"too few episodes to tell: play at least {found.enough}, --episodes {found.enough}"
    if found.agrees:
        return f"they agree (by chance two tests of one agent differ as much, p = {found.p:.2g})"
    others = _other_versions(bundle)
    why = f"; versions differ: {', '.join(others)}" if others else ""
    return f"they do not agree (by chance two tests of one agent seldom differ as much, p = {found.p:.2g}){why}"


def _other_versions(bundle: RunFolder) -> list[str]:
    """Packages of which another version is installed here than where the bundle's run was made."""
    starts = provenance.starts(bundle)
    there = starts[-1].get("packages") if starts else None
    here = provenance.collect(())["packages"]
    known = {name: there[name] for name in here if there.get(name)} if isinstance(there, dict) else {}
    return [f"{name} {version} there, {here[name]} here" for name, version in known.items() if version != here[name]]
