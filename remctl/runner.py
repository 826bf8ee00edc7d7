"""One run from start to `result.json`, and what can be asked of it afterwards: evaluate, inspect.

The run folder is the only contract: whatever stands here is derived from it and can be done again.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from remctl.config import RunConfig, build, config_hash, differing, from_yaml, to_yaml, why_not_trained
from remctl.dream.figures import diagnosis_figures
from remctl.dream.media import write_media
from remctl.envs import make_env
from remctl.errors import UserError
from remctl.games import folder_name
from remctl.precision import decide, native_precision
from remctl.progress import Reporter
from remctl.runs import provenance
from remctl.runs.code import Code, distinct, recorded, this_code
from remctl.runs.cores import Load
from remctl.runs.files import make_folder, refuse_target, truncate_jsonl, write_atomic, write_json
from remctl.runs.imported import keep_score, refuse_imported
from remctl.runs.layout import RunFolder, run_path
from remctl.runs.lock import locked
from remctl.runs.metrics import MetricsLog, open_trackers
from remctl.runs.places import Places, is_nameless, why_nameless
from remctl.runs.result import read_result
from remctl.stopping import StopFlag
from remctl.train import checkpoint, threads
from remctl.train.build import Agent, build_agent, build_image_loss
from remctl.train.continuing import adopt
from remctl.train.diagnosis import diagnose
from remctl.train.estimate import announce
from remctl.train.evaluate import Episode, as_steps, play
from remctl.train.loading import load_agent, load_weights
from remctl.train.restoring import precision_before, restorable
from remctl.train.seeding import Randomness
from remctl.train.testing import controller_trained, episode_record
from remctl.train.trainer import Trainer, has_clipped
from remctl.train.waiting import yielding

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def train(
    config: RunConfig,
    *,
    out: Path,
    experiment: str,
    device: str,
    command: list[str],
    quiet: bool = False,
    source: RunFolder | None = None,
) -> RunFolder:
    """Start, resume or find finished the run of `config` in out/experiment/variant/game/seed_N; returns its folder.

    It begins with what the shorter run in `source` has done, if that is given. Raises UserError where the folder belongs to
    another configuration or an unfinished run of an earlier version cannot go on, MachineError where the machine refuses,
    and Interrupted on SIGTERM, SIGUSR2 or Ctrl-C.
    """
    run = RunFolder(run_path(out, experiment, config.variant, folder_name(config.game), config.seed))
    with StopFlag().listening() as stop:
        refuse_imported(run, "there is no training to resume; choose another --name or --out")
        refuse_other_configuration(run, config)
        if run.is_done:
            result = read_result(run, "score", "num_episodes", "game", "seed")
            made_by = recorded(result)
            by_other = f" by other code (remctl {made_by.version})" if made_by and made_by.is_other(this_code()) else ""
            print(f"{run.path}: finished already{by_other}, {describe_result(result)}")
            return run
        if reason := why_not_trained(config):
            raise UserError(f"{run.path} cannot be trained: {reason}")
        if not run.config.exists() and (other := found_elsewhere(out, run, config)):
            did = "has finished" if other.is_done else "has begun"
            print(f"{other.path}: {did} this configuration already; {run.path} trains it once more")
        prepare_torch(config)
        where = pick_device(device)
        make_env(config.game, config.environment, training=True, seed=0).close()  # refused before a folder is made
        with locked(run), Reporter(stop, run.log, quiet) as reporter:
            if source is not None:
                adopt(source, run, config)
            _train(config, run, where, command, reporter)
    return run


def codes_before(run: RunFolder) -> tuple[Code, ...]:
    """Return the code of every earlier start of a run; none if nothing of it is kept. Raises MachineError."""
    return distinct(provenance.starts(run)) if checkpoint.generations(run) else ()


def _train(config: RunConfig, run: RunFolder, device: torch.device, command: list[str], reporter: Reporter) -> None:
    load = Load()  # looks on while the agent is built
    about = {**config.model_dump(mode="json", by_alias=True), "config_hash": config_hash(config)}
    trackers = open_trackers(run, config.runtime.trackers, about)
    with closing(MetricsLog(run, trackers)) as log:
        _run(_resumed(config, run, device, reporter, log), config, command, load)


def _resumed(config: RunConfig, run: RunFolder, device: torch.device, reporter: Reporter, log: MetricsLog) -> Trainer:
    """The trainer after the last complete epoch, in the precision of that; what was loaded is not kept with it."""
    with reporter.doing("loading"):
        found = restorable(run, config, reporter.log)
    precision, why = decide(config.runtime.precision, precision_before(run, found.checkpoint), native_precision(device))
    reporter.log(f"{run.path}  config {config_hash(config)}  device {device}, {why}")
    trainer = Trainer(config.at_precision(precision), run, device, reporter, log)
    with reporter.doing("loading"):
        trainer.resume(found)
    return trainer


def _run(trainer: Trainer, asked: RunConfig, command: list[str], load: Load) -> None:
    config, run, device, reporter = trainer.config, trainer.folder, trainer.device, trainer.reporter
    threads.settle(trainer, load)
    about = describe_device(device, config.runtime.precision)
    others = [code.version for code in codes_before(run) if code.is_other(this_code())]
    if others:
        reporter.log(f"note: begun by other code (remctl {', '.join(others)}), resumed by {this_code().version}")
    provenance.append(run, provenance.collect(command, about))  # not of a start that was refused
    if not run.config.exists():
        write_atomic(run.config, to_yaml(asked))
    with yielding():
        announce(trainer.agent, trainer.image_loss, reporter)
        trainer.run()
        finish(trainer)


def finish(trainer: Trainer) -> None:
    """The final test episodes, the media, and last of all result.json, whose presence means done."""
    config = trainer.config
    with trainer.phase("final_test"):
        episodes = trainer.play("final", config.training.num_epochs, config.evaluation.final_episodes)
    with trainer.reporter.stop.finishing():
        _write_result(trainer, episodes)


def _write_result(trainer: Trainer, episodes: list[Episode]) -> None:
    config, run, reporter = trainer.config, trainer.folder, trainer.reporter
    with trainer.phase("media"):
        write_media(
            trainer.agent,
            as_steps(episodes),
            run.media,
            _media_randomness(config),
            trainer.collector.env.action_names,
            config.game,
        )
    # Final episodes of a start that was killed before its result was written:
    truncate_jsonl(run.episodes, lambda entry: entry["kind"] != "final")
    trainer.log.append_episodes(config.training.num_epochs, [episode_record("final", e) for e in episodes])
    result = describe_run(config, episodes) | {
        "env_steps": trainer.buffer.size,
        "rewards_clipped": has_clipped(trainer.buffer.rewards[: trainer.buffer.size].cpu().numpy()),
        "wall_s": {name: round(seconds, 3) for name, seconds in trainer.clock.seconds.items()},
        "device": describe_device(trainer.device, " + ".join(trainer.precisions or [config.runtime.precision])),
    }
    write_json(run.result, result)
    reporter.log(f"{run.path}: {describe_result(result)}")


def describe_run(config: RunConfig, episodes: list[Episode]) -> dict[str, Any]:
    """A score, the returns it is the mean of, and what they belong to."""
    returns = [e.total_return for e in episodes]
    return {
        "score": sum(returns) / len(returns),
        "returns": returns,
        "num_episodes": len(returns),
        "temperature": config.evaluation.temperature,
        "game": config.game,
        "seed": config.seed,
        "variant": config.variant,
        "preset": config.preset,
        "config_hash": config_hash(config),
        "remctl_version": this_code().version,
        "sources": this_code().sources,
    }


def describe_result(result: dict[str, Any]) -> str:
    """One line for people."""
    return f"score {result['score']:.2f} (mean of {result['num_episodes']} episodes, {result['game']}, seed {result['seed']})"


def evaluate(path: Path, episodes: int, device: str, seed: int | None = None) -> dict[str, Any]:
    """Play `episodes` test episodes with a run's newest agent. `seed` defaults to the run's.

    Nothing is written, but that imported weights, which have no other score, keep this one if it is as of a final test.
    """
    with agent_of(path, device) as (agent, epoch, run, reporter):
        random = Randomness(agent.config.seed if seed is None else seed, epoch, "eval")
        result, final = play_test(agent, episodes, random, reporter), agent.config.evaluation.final_episodes
        if run.is_imported:
            reporter.log(keep_score(run, result, random.seed == agent.config.seed and episodes >= final, final))
        return result | {"epoch": epoch, "evaluation_seed": random.seed}


def play_test(agent: Agent, num_episodes: int, random: Randomness, reporter: Reporter) -> dict[str, Any]:
    """Play test episodes with the agent of epoch `random.epoch`: what `describe_run` says of them, and the device."""
    trained = controller_trained(agent.config, random.epoch)
    with reporter.counting("episodes", num_episodes) as advance:
        played = play(agent, num_episodes, random, advance, trained)
    device = describe_device(agent.device, agent.config.runtime.precision)
    return describe_run(agent.config, played) | {"device": device}


def inspect(path: Path, device: str, out: Path | None = None, num_steps: int | None = None) -> dict[str, Any]:
    """The diagnosis of a run's newest agent on fresh test episodes, over `num_steps` imagined ones (None: as C is trained).

    Figures and diagnosis.json go into `out`, by default the run's media folder. Raises UserError and MachineError, the
    latter where that is not writable.
    """
    folder = RunFolder(path).media if out is None else out
    _refuse_unwritable(RunFolder(path), folder, out)
    with agent_of(path, device, num_steps) as (agent, epoch, run, reporter):
        config, random = agent.config, Randomness(agent.config.seed, epoch, "inspect")
        count, trained = config.evaluation.num_episodes, controller_trained(config, epoch)
        with reporter.counting("episodes", count) as advance:
            steps = as_steps(play(agent, count, random, advance, trained, num_kept=count))
        starts = config.evaluation.diagnosis_starts
        with reporter.doing("diagnosis"):
            image_loss = build_image_loss(config, agent.device, reporter.log)
            diagnosis = diagnose(agent, steps, image_loss, random, starts, reporter.stop.check)
        make_folder(folder)
        write_json(folder / "diagnosis.json", {"epoch": epoch, **diagnosis})
        entries = MetricsLog(run).entries()
        figures = diagnosis_figures(diagnosis, entries, folder)
        return {"epoch": epoch, "diagnosis": diagnosis, "figures": [str(f) for f in figures]}


def _refuse_unwritable(run: RunFolder, folder: Path, out: Path | None) -> None:
    """Before anything is played."""
    if run.is_bundle and folder.resolve().is_relative_to(run.path.resolve()):
        raise UserError(f"{run.path} is a bundle, into which nothing is written: add --out DIR, another folder")
    try:
        refuse_target(folder / "diagnosis.json")
    except UserError as error:
        hint = "; --out DIR writes elsewhere" if out is None else ""
        raise type(error)(f"{error}{hint}") from None


@contextmanager
def agent_of(path: Path, device: str, num_steps: int | None = None) -> Iterator[tuple[Agent, int, RunFolder, Reporter]]:
    """The newest agent of a run, or that of a bundle, for evaluation; its epoch, folder, and who says how it goes.

    Raises UserError where there is none, or its weights do not fit its configuration; MachineError for what is damaged.
    """
    run = RunFolder(path)
    if not run.config.exists() and not run.is_bundle:
        raise UserError(f"{path}: not a run folder (no config.yaml): give a folder such as runs/quick/rem/Pong/seed_0")
    loaded = load_agent(run)
    config = from_yaml(run.config)
    if num_steps is not None:  # some of the horizon may only be M's context
        horizon = config.imagination.horizon + num_steps - config.num_rewarded_steps
        config = build({"imagination.horizon": horizon}, over=config)
    prepare_torch(config)
    env, where = make_env(config.game, config.environment, training=False, seed=0), pick_device(device)
    precision, why = decide(config.runtime.precision, precision_before(run, loaded), native_precision(where))
    agent = build_agent(config.at_precision(precision), env.num_actions, where)
    env.close()
    load_weights(agent, loaded.agent, path)
    for module in agent.components.values():
        module.eval()
    with StopFlag().listening() as stop, Reporter(stop, to_stderr=True) as reporter, yielding():
        reporter.log(f"{path}  device {where}, {why}")
        yield agent, loaded.epoch, run, reporter


def refuse_other_configuration(run: RunFolder, config: RunConfig) -> None:
    """Nothing is touched where the folder belongs to another configuration: UserError naming the keys that differ.

    Nor where it holds a finished run of which nothing says whose it is.
    """
    if is_nameless(run):
        raise UserError(why_nameless(run))
    if not run.config.exists():
        return
    changes = differing(from_yaml(run.config), config)
    if changes:
        listed = ", ".join(
            f"{key} is {_short(old)} there, {_short(new)} here" for key, (old, new) in list(changes.items())[:5]
        )
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        version = (
            "it is a finished run of an earlier version" if run.is_done else "the version that began it can finish it"
        )
        version = f" ({version})" if "training.random_streams" in changes else ""
        raise UserError(
            f"{run.path} belongs to another configuration ({listed}{more}): choose another --name or --out{version}"
        )


def found_elsewhere(out: Path, run: RunFolder, config: RunConfig) -> RunFolder | None:
    """Another run of this configuration below `out`, as an ablation would find it; None without one."""
    found = Places(out).find(run.path.parents[2], os.path.relpath(run.path, out), config_hash(config))
    return RunFolder(found) if found != run.path else None


def pick_device(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N; UserError with the remedy where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise UserError(f"--device {name}: allowed are auto, cpu, cuda, cuda:N")
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= found:
            raise UserError(f"--device {name}: {found} CUDA device(s) here; use --device cpu, or auto")
    return torch.device(name)


def prepare_torch(config: RunConfig) -> None:
    """Process-wide settings: threads, precision of float32 matmuls, TF32 convolutions, memory kept for its next use."""
    keep_freed_memory()
    threads.prepare(config.runtime.threads)
    torch.set_float32_matmul_precision(config.training.matmul_precision)
    torch.backends.cudnn.allow_tf32 = config.training.matmul_precision != "highest"


def keep_freed_memory() -> None:
    """With glibc, freed memory stays the process's: a tensor of megabytes then costs no page faults. Elsewhere nothing.

    A run so holds the memory of its largest phase to its end.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never


def describe_device(device: torch.device, precision: str | None = None) -> dict[str, Any]:
    """Kind, name, memory or threads of the device, and the precision of what runs on it."""
    about = {"precision": precision} if precision else {}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {"type": "cuda", "name": properties.name, "memory_mb": properties.total_memory >> 20} | about
    return {"type": "cpu", "name": provenance.cpu_model(), "threads": torch.get_num_threads()} | about


def _media_randomness(config: RunConfig) -> Randomness:
    return Randomness(config.seed, config.training.num_epochs, "media")


def _short(value: Any) -> str:
    return json.dumps(value)[:40]
