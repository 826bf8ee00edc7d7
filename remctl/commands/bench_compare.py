"""`remctl bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remctl.commands.options import Json

if TYPE_CHECKING:
    from remctl.bench.compare import Comparison
    from remctl.bench.result import Case, Result


def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="The bench.json from before.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="The bench.json from after.")],
    json: Json = False,
) -> None:
    """Compare two benchmarks: what became slower or faster, beyond the spread and the machine's drift."""
    from remctl.bench import result
    from remctl.bench.compare import compare, comparison_tables

    comparison = compare(result.read(a), result.read(b))
    if json:
        from remctl.commands.output import show_json

        show_json(as_json(comparison))
        return
    from remctl.commands.bench_output import show_tables

    print(f"A: {a}\nB: {b}")
    for sentence in comparison.hardware:
        print(sentence)
    print()
    show_tables(comparison_tables(comparison))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """JSON-compatible; every case by what it is and the numbers that were compared, without its single rounds."""
    return {
        "a": _about(comparison.a),
        "b": _about(comparison.b),
        "hardware": comparison.hardware,
        "drift": comparison.drift and comparison.drift.model_dump(exclude={"to"}),
        "cases": [
            {
                **_case(c.a),
                "a": {"median": c.a.median, "spread": c.a.spread.model_dump()},
                "b": {"median": c.b.median, "spread": c.b.spread.model_dump()},
                "ratio": c.ratio.median,
                "spread": c.ratio.spread.model_dump(),
                "corrected": c.corrected and c.corrected.model_dump(),
                "verdict": c.verdict,
                "reason": c.reason,
            }
            for c in comparison.changes
        ],
        "counts": [{**_case(c.case), "count": c.count, "a": c.a, "b": c.b} for c in comparison.counts],
        "unmatched": [
            {**_case(u.case), "measured_in": u.measured_in, "reason": u.reason} for u in comparison.unmatched
        ],
    }


def _about(result: Result) -> dict[str, Any]:
    return {"code": result.code, "scale": result.scale, "complete": result.complete, "device": result.device.name}


def _case(case: Case) -> dict[str, Any]:
    names = ("suite", "axis", "value", "name", "phase", "config_hash", "batch_size", "precision")
    return {name: getattr(case, name) for name in names}
