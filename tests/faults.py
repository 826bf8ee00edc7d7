"""Plant faults one by one in a copy of the package and report which test notices each. None may go unnoticed.

    python -m tests.faults [--group GROUP] [--list]        (or: make faults)

A fault is a group, a file, a text that stands in it exactly once, what replaces it, and the tests that are run. The copy
lies in a temporary folder; the tree is not touched. Exit status 1 if a fault goes unnoticed or no longer applies.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Fault:
    group: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def name(self) -> str:
        return f"{self.group}: {self.file}: {self.old.strip().splitlines()[0][:60]} -> {self.new.strip()[:60]}"


POP, M, C, V = (
    "tests/rem/test_pop.py",
    "tests/rem/test_world_model.py",
    "tests/rem/test_imagination.py",
    "tests/rem/test_tokenizer.py",
)
ACTING, PHASES, RESUME = "tests/train/test_acting.py", "tests/train/test_phases.py", "tests/train/test_resume.py"
BUFFER, ATARI, LPIPS = "tests/replay/test_buffer.py", "tests/envs/test_atari.py", "tests/rem/test_perceptual.py"
CHECKPOINT = "tests/train/test_checkpoint.py tests/train/test_checkpoint_damage.py"
RUNS, CONFIG, CLI = "tests/runs", "tests/config", "tests/cli"

FAULTS = [
    # Numerics: retention
    Fault("numerics", "rem/retention.py", "torch.arange(n - 1, -1, -1)", "torch.arange(n, 0, -1)", POP),
    Fault("numerics", "rem/retention.py", "torch.arange(1, n + 1)", "torch.arange(n)", POP),
    Fault("numerics", "rem/retention.py", "even * cos - odd * sin, odd * cos + even * sin", "even * cos - odd * sin, odd * cos - even * sin", POP),
    Fault("numerics", "rem/retention.py", ".clamp(min=0)).tril()\n\n        return self._get((\"causal\"", ".abs())\n\n        return self._get((\"causal\"", POP),
    Fault("numerics", "rem/retention.py", "THETA_BASE = 10_000.0", "THETA_BASE = 1_000.0", POP),
    Fault("numerics", "rem/retention.py", "else torch.float32\n        full_key", "else like.dtype\n        full_key", POP),
    Fault("numerics", "rem/retnet.py", "k / self.head_dim**0.5", "k", POP),
    Fault("numerics", "rem/retnet.py", "states[:, layout.first_predicted : layout.first_predicted + layout.num_predicted]", "states[:, 1 + layout.first_predicted : 1 + layout.first_predicted + layout.num_predicted]", POP),
    Fault("numerics", "rem/retnet.py", "(self.start + (self.first_predicted + i) * self.block_len", "(self.start + i * self.block_len", POP),
    Fault("numerics", "rem/retnet.py", "states[:, 0:whole:c]", "states[:, 0 : whole // c]", POP),
    Fault("numerics", "rem/retnet.py", "            qkv = qkv._replace(v=v)\n", "            del v\n", POP),
    Fault("numerics", "rem/retnet.py", "eps=layer.retention.group_norm.eps", "eps=1e-2", POP),
    # Numerics: the world model
    Fault("numerics", "rem/world_model.py", "(block >= context)[None], (block >= context)[None]", "(block > context)[None], (block >= context)[None]", M),
    Fault("numerics", "rem/world_model.py", "(block >= context - 1)[None] | starts", "(block >= context)[None] | starts", M),
    Fault("numerics", "rem/world_model.py", "rewarded & segment.real", "rewarded", M),
    Fault("numerics", "rem/world_model.py", "first * self.block_len - 1 : -1", "first * self.block_len : ", M),
    Fault("numerics", "rem/world_model.py", "state.position + 1 + i", "state.position + i", M),
    Fault("numerics", "rem/world_model.py", "self.retnet(blocks, state, keep=real)", "self.retnet(blocks, state)", M),
    Fault("numerics", "rem/world_model.py", "code_vectors), (T - 1) * self.block_len", "code_vectors), (T - 2) * self.block_len", M),
    Fault("numerics", "rem/world_model.py", "self.reward_head(at_action), generator) - 1", "self.reward_head(at_action), generator) * -1 + 1", M),
    Fault("numerics", "rem/world_model.py", "weight.sum().clamp(min=1)", "weight.numel()", M),
    # Numerics: the controller and imagination
    Fault("numerics", "rem/returns.py", "(1 - lambda_) * values[:, t + 1] + lambda_ * result", "(1 - lambda_) * values[:, t] + lambda_ * result", C),
    Fault("numerics", "rem/returns.py", "discount * (1 - ends.to(values.dtype))", "discount + 0 * ends.to(values.dtype)", C),
    Fault("numerics", "rem/imagination.py", "-mean(log_prob * (returns", "mean(log_prob * (returns", C),
    Fault("numerics", "rem/imagination.py", "-c.entropy_weight * mean(entropy)", "c.entropy_weight * mean(entropy)", C),
    Fault("numerics", "rem/imagination.py", "world_model.step(model_state, action, generator)", "world_model.step(model_state, action * 0, generator)", C),
    Fault("numerics", "rem/imagination.py", "(f + 1) % (config", "f % (config", C),
    Fault("numerics", "rem/imagination.py", "over = ends.float().cumsum(1) - ends.float()", "over = ends.float().cumsum(1)", C),
    Fault("numerics", "rem/controller.py", "    @torch.no_grad()\n    def burn_in", "    def burn_in", C),
    Fault("numerics", "rem/controller.py", "state = new.where(real[:, f], state)", "state = new", C),
    Fault("numerics", "rem/controller.py", "with torch.autocast(state.h.device.type, enabled=False)", "with torch.autocast(state.h.device.type, enabled=torch.is_autocast_enabled('cpu'))", C),
    Fault("numerics", "rem/sampling.py", "logits.float() / temperature", "logits.float()", C),
    # Numerics: the tokenizer and its losses
    Fault("numerics", "rem/tokenizer.py", "(codes - latents).detach()", "(codes - latents)", V),
    Fault("numerics", "rem/tokenizer.py", "F.mse_loss(codes, latents.detach())", "F.mse_loss(codes, latents)", V),
    Fault("numerics", "rem/tokenizer.py", "- 2 * flat @ table.T", "- flat @ table.T", V),
    Fault("numerics", "rem/perceptual.py", "0.01 * worst", "0.1 * worst", LPIPS),
    Fault("numerics", "rem/perceptual.py", "squared.mean(dim=(2, 3))", "squared.sum(dim=(2, 3))", LPIPS),
    # Protocol
    Fault("protocol", "envs/atari.py", "BILINEAR", "NEAREST", ATARI),
    Fault("protocol", "envs/__init__.py", "training and environment.end_on_life_loss", "environment.end_on_life_loss", "tests/envs"),
    Fault("protocol", "train/evaluate.py", "training=False", "training=True", ACTING),
    Fault("protocol", "train/evaluate.py", "trained, config.evaluation.temperature", "trained, config.collection.temperature", ACTING),
    Fault("protocol", "train/evaluate.py", "state = reset_rows(state, policy.initial_state(len(envs)), over)", "pass", ACTING),
    Fault("protocol", "train/collector.py", "result.reward, result.terminated\n", "result.reward, result.terminated or result.truncated\n", ACTING),
    Fault("protocol", "train/collector.py", "                self.controller_state = policy.initial_state(1)\n", "                self.controller_state = self.controller_state or policy.initial_state(1)\n", ACTING),
    Fault("protocol", "train/acting.py", "rng.random(n) < self.epsilon", "rng.random(n) > self.epsilon", ACTING),
    Fault("protocol", "train/trainer.py", "            c.temperature,\n            c.epsilon,\n", "            1.0,\n            0.0,\n", RESUME),
    Fault("protocol", "train/trainer.py", "return epoch > config.controller.training.start_after_epoch", "return epoch > config.controller.training.start_after_epoch + 1", RESUME),
    # Training
    Fault("training", "train/phases.py", "    buffer.forget_tokens()\n", "", PHASES),
    Fault("training", "train/phases.py", "min_before = 2 if", "min_before = 1 if", PHASES),
    Fault("training", "train/phases.py", "epoch == phase.start_after_epoch + 1)", "epoch == phase.start_after_epoch)", PHASES),
    Fault("training", "train/build.py", "nn.LayerNorm | nn.GroupNorm | nn.Embedding", "nn.LayerNorm | nn.GroupNorm", PHASES),
    Fault("training", "replay/buffer.py", "offset < self.episodes.remaining[starts][..., None]", "offset <= self.episodes.remaining[starts][..., None]", BUFFER),
    Fault("training", "replay/buffer.py", "offset + self.episodes.before[current][..., None] >= 0", "offset + current[..., None] >= 0", BUFFER),
    Fault("training", "replay/sampling.py", "episodes.remaining >= min_blocks", "episodes.remaining > min_blocks", BUFFER),
    # Isolation
    Fault("isolation", "variants.py", '"controller.observes": "frames"})', '"controller.observes": "frames", "controller.hidden_dim": 32})', "tests/test_isolation.py"),
    Fault("isolation", "rem/world_model.py", "        if self.pop:\n            self.prediction_embedding", "        if True:\n            self.prediction_embedding", "tests/test_isolation.py"),
    Fault("isolation", "rem/controller.py", "if config.action_inputs:\n            self.action_embedding", "if True:\n            self.action_embedding", "tests/test_isolation.py"),
    # Resume and faults
    Fault("resume", "train/trainer.py", "        self.log.rewind(self.epoch)\n", "", RESUME),
    Fault("resume", "train/trainer.py", '        self.collector.set_state(loaded.trainer["collector"], self.device)\n', "", RESUME),
    Fault("resume", "train/trainer.py", "            optimizer.load_state_dict(", "            print(", RESUME),
    Fault("resume", "train/trainer.py", "range(1, min(self.epoch, ", "range(2, min(self.epoch, ", RESUME),
    Fault("resume", "train/seeding.py", "torch.manual_seed(derive_seed(self.seed, self.epoch, self.phase, \"global\"))", "pass", RESUME),
    Fault("resume", "train/trainer.py", "        if num_steps(self.config.world_model.training, epoch) or num_steps(self.config.controller.training, epoch):\n", "        if num_steps(self.config.world_model.training, epoch):\n", RESUME),
    Fault("resume", "train/trainer.py", "if not loaded and len(logged) > 1:", "if False:", RESUME),
    Fault("resume", "runs/files.py", "        raise machine_error(error, action, path) from error", "        return", "tests/train/test_boundary_faults.py"),
    Fault("resume", "train/checkpoint.py", "key=lambda path: (_epoch_of(path), not", "key=lambda path: (path.stat().st_mtime, not", RESUME),
    Fault("resume", "runner.py", "refuse_other_configuration(run, config)\n        if", "if", RESUME),
    Fault("resume", "runs/lock.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", RUNS),
    Fault("resume", "runs/files.py", "os.replace(", "shutil.copy(", f"{RUNS} {CHECKPOINT}"),
    Fault("resume", "train/checkpoint.py", "map_location=device, weights_only=True", "map_location=device, weights_only=False", CHECKPOINT),
    # Hostile input
    Fault("hostile", "config/schema.py", "allow_inf_nan=False", "allow_inf_nan=True", CONFIG),
    Fault("hostile", "config/schema.py", 'extra="forbid"', 'extra="ignore"', f"{CONFIG} {CLI}"),
    Fault("hostile", "replay/store.py", "allow_pickle=False", "allow_pickle=True", BUFFER),
    Fault("house", "rem/tokenizer.py", "Frames (B, 3, H, W) in [-1, 1] through the codes", "Through the codes", "tests/test_layers.py"),
    Fault("house", "rem/returns.py", "import torch\n", "import torch\n\nimport remctl.envs\n", "tests/test_layers.py"),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", choices=sorted({f.group for f in FAULTS}))
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = [f for f in FAULTS if options.group in (None, f.group)]
    if options.list:
        print("\n".join(f.name for f in chosen))
        return 0
    outcomes = [try_fault(i, fault, len(chosen)) for i, fault in enumerate(chosen, 1)]
    print(f"{outcomes.count(True)} of {len(chosen)} faults noticed")
    return 0 if all(outcomes) else 1


def try_fault(number: int, fault: Fault, total: int) -> bool:
    """Plant it in a fresh copy, run its tests; whether one failed."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        copy = Path(folder)
        for name in ("remctl", "tests", "pyproject.toml", "constraints.txt"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        path = copy / "remctl" / fault.file
        text = path.read_text()
        if text.count(fault.old) != 1:
            print(f"{number}/{total} DOES NOT APPLY ({text.count(fault.old)} places)  {fault.name}", flush=True)
            return False
        path.write_text(text.replace(fault.old, fault.new))
        begin = time.perf_counter()
        noticed = failing_test(copy, fault.tests)
        label = f"noticed by {noticed}" if noticed else "UNNOTICED"
        print(f"{number}/{total} {label} ({time.perf_counter() - begin:.0f} s)  {fault.name}", flush=True)
        return noticed is not None


def failing_test(copy: Path, tests: str) -> str | None:
    """The first test that fails in the copy; None if all pass."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *tests.split(),
    ]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found.group(1) if found else f"pytest's exit status {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
