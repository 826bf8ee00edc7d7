"""README.md of a bundle: what the agent is, how it was trained, its score, and how to check it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from remctl import games
from remctl.config import RunConfig, config_hash
from remctl.exchange.agreement import interval, stored_returns
from remctl.variants import label_of

PICTURES = {
    "media/episode.webp": "The first test episodes, as the agent saw and played them.",
    "media/dream.webp": "Reality, its reconstruction, and what the world model imagines under the same actions.",
    "media/reconstructions.png": "Frames, their reconstructions by the tokenizer, and the differences.",
}
LICENCE = "MIT, like remctl. The game belongs to its makers."


def card(config: RunConfig, result: Mapping[str, Any], starts: Sequence[Mapping[str, Any]], num_weights: int) -> str:
    """Return the card as Markdown; `starts` are the public entries of provenance.json."""
    label = label_of(config.variant)
    rows = {
        "agent": f"{label} (variant `{config.variant}`), preset `{config.preset}`, {num_weights:,} weights",
        "game": f"{config.game}, seed {config.seed}",
        "score": _score(result),
        **_known_scores(config),
        "training": _training(config, result),
        "machine": _machine(result),
        "command": _command(starts),
        "code": _code(result, starts),
        "configuration": f"`{config_hash(config)}`, in [config.yaml](config.yaml)",
        "licence": LICENCE,
    }
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in rows.items() if text)
    pictures = "\n\n".join(f"![{text}]({name})\n\n{text}" for name, text in PICTURES.items())
    return f"""# {label} on {config.game}

| | |
|---|---|
{table}

{pictures}

## Check it

`DIR` is this folder:

```sh
remctl eval DIR                              # compare the checksums, play the final test again, compare the scores
remctl config show --from DIR                # every setting
remctl import DIR --out runs/imported/{config.variant}/{games.folder_name(config.game)}/seed_{config.seed}
remctl train --from DIR/config.yaml          # train the same agent again
```

[result.json](result.json) has the score, [episodes.jsonl](episodes.jsonl) every return, [metrics.jsonl](metrics.jsonl) a line
for each epoch, [provenance.json](provenance.json) the versions and the machine of every start, and [bundle.json](bundle.json)
the checksums. `agent.safetensors` holds the weights, and no code.
"""


def _known_scores(config: RunConfig) -> dict[str, str]:
    """What the score stands next to, by who played; nothing for another environment than the published one."""
    found = None if config.environment.arguments else games.find_reference(config.game)
    return {"random play": f"{found.random:g}", found.label: f"{found.score:g}"} if found else {}


def _score(result: Mapping[str, Any]) -> str:
    returns = stored_returns(result, "result.json")
    low, high = interval(returns)
    return f"**{result['score']:.4g}**, mean of {len(returns)} test episodes, 95% interval {low:.4g} to {high:.4g}"


def _training(config: RunConfig, result: Mapping[str, Any]) -> str:
    seconds = sum((result.get("wall_s") or {}).values())
    steps = f"{result['env_steps']:,} real steps, " if "env_steps" in result else ""
    time = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    return f"{steps}{config.training.num_epochs} epochs, {time} with tests"


def _machine(result: Mapping[str, Any]) -> str:
    device = result.get("device") or {}
    threads = device.get("threads")
    parts = (device.get("name"), f"{threads} thread{'s' * (threads != 1)}" if threads else "", device.get("precision"))
    return ", ".join(str(part) for part in parts if part)


def _command(starts: Sequence[Mapping[str, Any]]) -> str:
    words = starts[0].get("command") if starts else None
    if not words:
        return ""
    return f"`{shlex.join(words)}`" + (f" ({len(starts)} starts)" if len(starts) > 1 else "")


def _code(result: Mapping[str, Any], starts: Sequence[Mapping[str, Any]]) -> str:
    last = starts[-1] if starts else {}
    versions = {
        "remctl": result.get("remctl_version"),
        "Python": last.get("python"),
        "torch": (last.get("packages") or {}).get("torch"),
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
