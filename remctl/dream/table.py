"""A diagnosis as tables for the terminal, and in words: what the numbers say is wrong, and what to do about it."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

Diagnosis = dict[str, Any]
Verdict = tuple[str, str]  # what is wrong, and the end of that sentence: what to do about it

# Set from runs that failed and runs that learned: rules of thumb, not statistics.
BAD_MEDIAN_RATIO = 0.9
FEW_CODES = 3.0
BAD_RATE = 0.6
GOOD_REWARD_LOSS = 0.05
BAD_CHANGED_ACCURACY = 0.5
RETURN_GAP = 0.25
MIN_EVENTS = 5


def diagnosis_table(diagnosis: Diagnosis, can_train: bool = True) -> list[Table]:
    """What `train.diagnosis.diagnose` returned: M in imagination, V and C, and the verdict. For a rich console.

    `can_train`: with advice on how to train the agent, which is of no use for one that was imported.
    """
    return [_observations(diagnosis), _events(diagnosis), _components(diagnosis), _verdict(diagnosis, can_train)]


def verdicts(diagnosis: Diagnosis, can_train: bool = True) -> list[str]:
    """One sentence per typical failure that shows, and what to do about it if one can; if none does, one that says so."""
    found = _tokenizer_verdicts(diagnosis) + _world_model_verdicts(diagnosis) + _return_verdicts(diagnosis)
    sentences = [f"{what}{advice if can_train else ''}." for what, advice in found]
    return sentences or ["No typical failure shows in these numbers."]


def _tokenizer_verdicts(diagnosis: Diagnosis) -> list[Verdict]:
    v = diagnosis["tokenizer"]
    ratio, found = v["reconstruction_to_median_ratio"], []
    if ratio is not None and ratio > BAD_MEDIAN_RATIO:
        what = f"V paints the median image (error {ratio:.2f} of the median image's)"
        advice = ": warm it up as an autoencoder, initialise the codebook by k-means, or train it longer"
        found.append((what, f"{advice}; M and C cannot work before V does"))
    if v["code_perplexity"] < FEW_CODES:
        found.append((f"V hardly uses its codebook (perplexity {v['code_perplexity']:.1f} of {v['num_codes']})", ""))
    return found


def _world_model_verdicts(diagnosis: Diagnosis) -> list[Verdict]:
    scores = diagnosis["imagination"]["all_steps"]
    changed, still, found = scores["token_accuracy_changed"], scores["token_accuracy_changed_no_change"], []
    if changed is not None and changed < max(BAD_CHANGED_ACCURACY, still or 0.0):
        what = f"M does not see what moves ({_percent(changed)} of the changed tokens right)"
        found.append((what, ": train M longer"))
    for name, event in (("reward", scores["reward"]["any"]), ("end", scores["end"])):
        found += _event_verdict(name, event, diagnosis["losses"]["world_model"])
    return found


def _event_verdict(name: str, event: Diagnosis, losses: dict[str, float] | None) -> list[Verdict]:
    """Rates of few events say nothing."""
    loss = losses[f"{name}_loss"] if losses else None
    but = f" though the loss on real segments looks perfect ({loss:.3f})" if loss and loss < GOOD_REWARD_LOSS else ""
    found = []
    if event["num_imagined"] >= MIN_EVENTS and event["precision"] < BAD_RATE:
        found.append((f"M imagines {name}s that do not come (precision {_percent(event['precision'])}){but}", ""))
    if event["num_real"] >= MIN_EVENTS and (event["recall"] or 0.0) < BAD_RATE:
        found.append((f"M misses {name}s (recall {_percent(event['recall'])}){but}", ""))
    return found


def _return_verdicts(diagnosis: Diagnosis) -> list[Verdict]:
    r = diagnosis["returns"]
    imagined, real = r["imagined_return"], r["real_return"]
    if imagined - real > RETURN_GAP:
        return [(f"Imagined return {imagined:.2f}, real {real:.2f}: C exploits what M has wrong", "; mend M first")]
    if max(imagined, real) <= 0:
        what = f"Imagined return {imagined:.2f} and real {real:.2f} are both low"
        return [
            (f"{what}: C explores too little, or no reward is within the horizon", "; raise controller.entropy_weight")
        ]
    return []


def _observations(diagnosis: Diagnosis) -> Table:
    table = _table("M under the actions really taken: tokens right, squared error of moving pixels")
    table.add_column("imagined")
    for name in ("tokens", "no change", "changed", "moving", "no change"):
        table.add_column(name, justify="right")
    for label, s in _parts(diagnosis):
        table.add_row(
            label,
            _percent(s["token_accuracy"]),
            _percent(s["token_accuracy_no_change"]),
            _percent(s["token_accuracy_changed"]),
            _number(s["moving_pixel_error"]),
            _number(s["moving_pixel_error_no_change"]),
        )
    table.caption = (
        f"{diagnosis['num_starts']} starts (of {diagnosis['num_starts_wanted']} wanted) in {diagnosis['num_episodes']} "
        f"episodes of {diagnosis['num_steps']} steps; up to {diagnosis['horizon_steps']} imagined steps each"
    )
    return table


def _events(diagnosis: Diagnosis) -> Table:
    table = _table("M under the actions really taken: precision / recall (imagined, real)")
    table.add_column("imagined")
    for name in ("reward +1", "reward -1", "end"):
        table.add_column(name, justify="right")
    for label, s in _parts(diagnosis):
        table.add_row(label, *(_rates(event) for event in (s["reward"]["+1"], s["reward"]["-1"], s["end"])))
    return table


def _parts(diagnosis: Diagnosis) -> list[tuple[str, Diagnosis]]:
    """Labelled rows: by step, then all steps by the number of real frames that M was given."""
    imagination = diagnosis["imagination"]
    names = {"first step": "first_step", "later steps": "later_steps", "all steps": "all_steps"}
    steps = [(label, imagination[name]) for label, name in names.items()]
    contexts = imagination["by_context"].items()
    return steps + [(f"{frames} frame{'s' * (frames != '1')} given", scores) for frames, scores in contexts]


def _table(title: str, show_header: bool = True) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_header=show_header)


def _components(diagnosis: Diagnosis) -> Table:
    table = _table("V and C")
    for name in ("what", "value", "beside", "value"):
        table.add_column(name, justify="right" if name == "value" else "left")
    v, r, policy = diagnosis["tokenizer"], diagnosis["returns"], diagnosis["policy"]
    codes = f"{v['used_codes']} of {v['num_codes']}"
    table.add_row("V: error", _number(v["reconstruction_error"]), "median image", _number(v["median_image_error"]))
    table.add_row("V: worst pixel", _number(v["worst_pixel_error"]), "", "")
    table.add_row("V: code perplexity", f"{v['code_perplexity']:.1f}", "used codes", codes)
    table.add_row(
        "C in M: length (steps)", f"{r['imagined_length']:.2f}", "true remaining length", f"{r['true_length']:.2f}"
    )
    table.add_row("C in M: return", f"{r['imagined_return']:.3f}", "real return", f"{r['real_return']:.3f}")
    table.add_row("C: value", f"{policy['value']:.3f}", "entropy (nats)", f"{policy['policy_entropy']:.3f}")
    return table


def _verdict(diagnosis: Diagnosis, can_train: bool) -> Table:
    table = _table("Verdict", show_header=False)
    for sentence in verdicts(diagnosis, can_train):
        table.add_row(sentence)
    return table


def _rates(event: Diagnosis) -> str:
    if not event["num_imagined"] and not event["num_real"]:
        return "-"
    rates = f"{_percent(event['precision'])}/{_percent(event['recall'])}"
    return f"{rates} ({event['num_imagined']}, {event['num_real']})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
