"""Plant faults one by one in a copy of the package and report which test notices each. None may go unnoticed.

    python -m tests.faults [--group GROUP] [--list]        (or: make faults)

A fault is a group, a file, a text that stands in it exactly once, what replaces it, and the tests that are run. The copy
lies in a temporary folder; the tree is not touched. The tests are first run without a fault: where they fail already, they
notice nothing. Noticed means that a test failed; a test file that cannot be collected and a run that is not over in time
are reported as what they are. Exit status 1 if a fault goes unnoticed or no longer applies.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 600


@dataclass(frozen=True)
class Fault:
    group: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def name(self) -> str:
        old, new = (" ".join(text.split())[:60] for text in (self.old, self.new))
        return f"{self.group}: {self.file}: {old} -> {new}"


POP, M, C, V = (
    "tests/rem/test_pop.py",
    "tests/rem/test_world_model.py",
    "tests/rem/test_imagination.py tests/rem/test_controller.py",
    "tests/rem/test_tokenizer.py",
)
ACTING, PHASES, RESUME = "tests/train/test_acting.py", "tests/train/test_phases.py", "tests/train/test_resume.py"
RUN, DAMAGE, ENVS = "tests/train/test_trainer.py", "tests/train/test_run_damage.py", "tests/envs/test_make_env.py"
BUFFER, ATARI, LPIPS = "tests/replay/test_buffer.py", "tests/envs/test_atari.py", "tests/rem/test_perceptual.py"
CHECKPOINT = "tests/train/test_checkpoint.py tests/train/test_checkpoint_damage.py"
RUNS, CONFIG, CLI, IRIS = "tests/runs", "tests/config", "tests/cli", "tests/iris"
STOPPING, PRESETS = "tests/test_stopping.py", "tests/config/test_config.py"
PAIRED = "tests/test_paired_variants.py"
ARGUMENTS = "tests/config/test_arguments.py tests/envs/test_gym_arguments.py"
EARLIER, PRECISION = "tests/test_earlier_version.py", "tests/test_precision.py"
CORES, THREADS = "tests/runs/test_cores.py", "tests/train/test_threads.py"
BENCH, DROPOUT = "tests/bench", "tests/test_dropout.py"
LIFE, REMAINING = "tests/test_progress.py", "tests/train/test_remaining.py"
OVERLAP, CAPTURED = "tests/train/test_overlap.py", "tests/train/test_captured.py"
COMMANDS, MOVED = "tests/sweep/test_slurm_commands.py", "tests/sweep/test_moved.py"
EXCHANGE = "tests/exchange"
SWEEP = "tests/sweep/test_plan.py tests/sweep/test_job.py tests/sweep/test_profile.py"

FAULTS = [
    # Threads: cores, quotas, load, and what follows
    Fault("threads", "runs/cores.py", "*(top / below).parents)", "top)", CORES),
    Fault("threads", "runs/cores.py", " if folder.is_relative_to(top))", ")", CORES),
    Fault("threads", "runs/cores.py", "Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()", "Path(path.lstrip('/'))", CORES),
    Fault("threads", "runs/cores.py", ' or (kind == "cgroup" and "cpu" not in options.split(","))', "", CORES),
    Fault("threads", "runs/cores.py", ' or "cpu" in controllers.split(",")', " or True", CORES),
    Fault("threads", "runs/cores.py", " if us > 0 else None", "", CORES),
    Fault("threads", "runs/cores.py", "int(quota) / int(period)", "int(quota) / 1000", CORES),
    Fault("threads", "runs/cores.py", "max(1, min(self.affinity, int(self.quota)))", "min(self.affinity, int(self.quota))", CORES),
    Fault("threads", "runs/cores.py", "min((int(text)", "max((int(text)", CORES),
    Fault("threads", "runs/cores.py", "(busy - own) / elapsed", "busy / elapsed", CORES),
    Fault("threads", "runs/cores.py", "before, self._last = self._last, self._counters()", "before, self._last = self._last, (now := self._counters())\n        self._last = before", CORES),
    Fault("threads", "runs/cores.py", " + niced * int(counts[1])", " + int(counts[1])", CORES),
    Fault("threads", "train/threads.py", "cores.affinity - round(busy or 0.0)", "cores.most_threads - round(busy or 0.0)", THREADS),
    Fault("threads", "train/threads.py", "number = max(1, min(", "number = (min(", THREADS),
    Fault("threads", "train/threads.py", "min(before, cores.most_threads)", "before", THREADS),
    Fault("threads", "train/threads.py", 'is_free = asked == "auto" and before is None', 'is_free = asked == "auto"', THREADS),
    Fault("threads", "train/threads.py", "    use(choice.number)\n    trainer", "    trainer", THREADS),
    Fault("threads", "train/threads.py", "copy.deepcopy(trainer.agent)", "trainer.agent", THREADS),
    Fault("threads", "train/threads.py", "WORTH_IT * min(", "min(", THREADS),
    Fault("threads", "train/trainer.py", '        self.num_threads_before = loaded.trainer.get("num_threads")\n', "", THREADS),
    Fault("threads", "train/waiting.py", "num_cores - num_threads + NOTICED", "NOTICED", THREADS),
    Fault("threads", "train/waiting.py", "self._size = max(2, size)", "self._size = 1", THREADS),
    Fault("threads", "train/waiting.py", "    if team is not None:\n        team.end()\n", "", THREADS),
    Fault("threads", "train/waiting.py", "        over.set()\n", "", THREADS),
    Fault("threads", "config/schema.py", "type(value) is not int or ", "", "tests/config/test_config_errors.py"),
    # Weights of others
    Fault("exchange", "exchange/iris.py", 'QKV = ("query", "key", "value")', 'QKV = ("key", "query", "value")', f"{EXCHANGE}/test_iris.py"),
    Fault("exchange", "exchange/iris.py", 'zip("qkv", _thirds', 'zip("kqv", _thirds', f"{EXCHANGE}/test_iris.py"),
    Fault("exchange", "exchange/layout.py", "        made[name][_slice(our_rows)] = tensors[key][_slice(rows)]", "        x = tensors[key][_slice(rows)]\n        made[name][_slice(our_rows)] = x.unflatten(0, (2, -1, 2)).transpose(1, 2).flatten(0, 2) if '.q_proj.w' in key else x", f"{EXCHANGE}/test_rem.py::test_the_world_model_computes_what_the_file_says"),
    Fault("exchange", "exchange/rem.py", "(num_codes, num_codes + num_actions)", "(num_codes + 1, num_codes + 1 + num_actions)", f"{EXCHANGE}/test_rem.py::test_the_world_model_computes_what_the_file_says"),
    Fault("exchange", "exchange/rem.py", "if not torch.allclose(", "if False and not torch.allclose(", f"{EXCHANGE}/test_mistakes.py"),
    Fault("exchange", "exchange/files.py", 'map_location="cpu", weights_only=True', "weights_only=False", f"{EXCHANGE}/test_mistakes.py"),
    Fault("exchange", "sweep/observe.py", "if known and not folder.is_imported and", "if known and", f"{EXCHANGE}/test_imported_runs.py"),
    Fault("exchange", "runner.py", '        refuse_imported(run, "there is no training to resume; choose another --name or --out")\n', "", f"{EXCHANGE}/test_imported_runs.py"),
    Fault("exchange", "runs/bundle.py", '    if _described(data)["sha256"] != expected["sha256"]:', '    if False:', f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "runs/bundle.py", '    if any(part.is_symlink() for part in', '    if False and any(part.is_symlink() for part in', f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "runs/bundle.py", 'any(part in ("", ".", "..") for part in parts)', 'any(part in ("", ".") for part in parts)', f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "runs/bundle.py", 'version > FORMAT', 'version > FORMAT + 1', f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "train/loading.py", 'found = safetensors.torch.load(data)', 'found = torch.load(__import__("io").BytesIO(data), weights_only=False)', f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "exchange/private.py", 'MACHINE = ("platform", "cpu",', 'MACHINE = ("hostname", "platform", "cpu",', f"{EXCHANGE}/test_bundle.py::test_nothing_names_the_machine_or_its_user"),
    Fault("exchange", "exchange/private.py", 'or ".." in value.split("/")', '', f"{EXCHANGE}/test_bundle.py::test_commands_keep_what_is_no_place"),
    Fault("exchange", "exchange/checking.py", '"final" if seed in (None, own) else "eval"', '"eval"', f"{EXCHANGE}/test_bundle.py::test_eval_plays_the_final_test_again_to_the_digit"),
    Fault("exchange", "exchange/agreement.py", 'not is_same else p >= LEAST_P', 'not is_same else True', f"{EXCHANGE}/test_bundle.py::test_two_tests_of_one_agent_agree_and_of_two_agents_do_not"),
    Fault("exchange", "exchange/bundle.py", '    if loaded.epoch != config.training.num_epochs:', '    if False:', f"{EXCHANGE}/test_bundle_mistakes.py::test_the_last_agent_must_be_there"),
    Fault("exchange", "runs/imported.py", '    if run.is_bundle:\n        raise UserError(', '    if False:\n        raise UserError(', f"{EXCHANGE}/test_bundle.py::test_nothing_is_trained_in_it"),
    Fault("exchange", "runs/imported.py", '    if record_of(run)["format"] == BUNDLE:', '    if False:', f"{EXCHANGE}/test_bundle.py::test_an_imported_one_keeps_its_score_and_is_never_trained"),
    Fault("exchange", "runner.py", '    if run.is_bundle and folder.resolve()', '    if False and folder.resolve()', f"{EXCHANGE}/test_bundle.py::test_inspect_writes_elsewhere_and_advises_no_training"),
    Fault("exchange", "runs/layout.py", 'not (self.is_imported or self.is_bundle)', 'True', f"{EXCHANGE}/test_bundle.py::test_inspect_writes_elsewhere_and_advises_no_training"),
    Fault("exchange", "runs/result.py", '    if run.is_bundle:\n        verify(run)\n', '', f"{EXCHANGE}/test_bundle.py::test_a_folder_of_bundles_counts_as_finished_runs"),
    Fault("exchange", "envs/modules.py", "        if _is_strange(place,", "        if False and _is_strange(place,", f"{EXCHANGE}/test_strangers_code.py::test_one_in_the_bundle_is_not_imported_though_the_path_leads_there"),
    Fault("exchange", "envs/modules.py", " or folder.is_relative_to(place) for", "  for", f"{EXCHANGE}/test_strangers_code.py::test_a_package_around_a_bundle_and_a_folder_next_to_it_are_not_imported"),
    Fault("exchange", "envs/modules.py", "    return place.is_dir() and not", "    return False and not", f"{EXCHANGE}/test_strangers_code.py::test_a_package_around_a_bundle_and_a_folder_next_to_it_are_not_imported"),
    Fault("exchange", "runner.py", "    if folders := strangers_folders(run):\n", "    if folders := ():\n", f"{EXCHANGE}/test_strangers_code.py::test_a_module_that_is_not_installed_is_not_looked_for"),
    Fault("exchange", "cli.py", "        if folders := strangers_folders(RunFolder(like.resolve().parent)):\n", "        if folders := ():\n", f"{EXCHANGE}/test_strangers_code.py::test_a_module_that_is_not_installed_is_not_looked_for"),
    Fault("exchange", "runs/imported.py", "if record.get(\"format\") == BUNDLE else ()", "if False else ()", f"{EXCHANGE}/test_strangers_code.py::test_a_module_that_is_not_installed_is_not_looked_for"),
    Fault("exchange", "__main__.py", "            del sys.path[0]\n", "            pass\n", f"{EXCHANGE}/test_strangers_code.py::test_the_working_folder_is_no_place_for_modules_of_libraries"),
    Fault("exchange", "exchange/agreement.py", "None if _smallest_p(n, m) >= LEAST_P and not is_same else", "", f"{EXCHANGE}/test_bundle.py::test_few_episodes_tell_nothing"),
    Fault("exchange", "exchange/agreement.py", "(2 if n == m else 1)", "1", f"{EXCHANGE}/test_bundle.py::test_few_episodes_tell_nothing"),
    Fault("exchange", "cli.py", "TOO_FEW if agrees is None else 1", "1", f"{EXCHANGE}/test_bundle.py::test_eval_says_how_many_episodes_would_tell"),
    Fault("exchange", "runs/bundle.py", "    if manifest.epoch != last:", "    if False:", f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "runs/bundle.py", "        bundle.manifest.name: manifest.config_hash,\n", "", f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "runs/layout.py", "(*about, self.lock, self.log, self.requests)", "()", f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "train/loading.py", "    refuse_no_numbers(run.agent, tensors)\n", "", f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_or_strange_one_is_refused_by_all"),
    Fault("exchange", "train/loading.py", "(len(part.lstrip(\"0\")), part)", "(int(part), \"\")", f"{EXCHANGE}/test_bundle_mistakes.py::test_one_that_cannot_be_played_is_refused"),
    Fault("exchange", "exchange/bundle.py", "    refuse_no_numbers(run.path, tensors)\n", "", f"{EXCHANGE}/test_bundle.py::test_a_run_that_diverged_is_refused"),
    Fault("exchange", "exchange/weights.py", "    refuse_no_numbers(run.path, ours)\n", "", f"{EXCHANGE}/test_bundle.py::test_a_run_that_diverged_is_refused"),
    Fault("exchange", "exchange/agreement.py", "x is None or", "", f"{EXCHANGE}/test_bundle.py::test_a_run_that_diverged_is_refused"),
    Fault("exchange", "exchange/folders.py", "out.with_name(f\"{secrets.token_hex(4)}-{out.name}\")", "out", f"{EXCHANGE}/test_bundle.py::test_leftovers_of_a_killed_export_get_into_none"),
    Fault("exchange", "exchange/private.py", "            if name.endswith(\".yaml\"):\n", "            if False:\n", f"{EXCHANGE}/test_bundle.py::test_no_path_beyond_the_working_folder_is_left_in_a_configuration"),
    Fault("exchange", "exchange/private.py", "            yield from _strings_in(load(part))\n", "            yield part\n", f"{EXCHANGE}/test_bundle.py::test_places_are_found_whatever_letters_are_in_them"),
    Fault("exchange", "exchange/private.py", "|[\\w.-]+=)*", ")*", f"{EXCHANGE}/test_bundle.py::test_commands_keep_what_is_no_place"),
    Fault("exchange", "sweep/observe.py", "    if run.is_done or run.is_bundle:", "    if run.is_done:", f"{EXCHANGE}/test_bundle_mistakes.py::test_one_that_lost_a_file_is_blocked_in_an_ablation"),
    Fault("exchange", "sweep/observe.py", "        if not is_intact(folder):", "        if False:", f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_one_goes_after_a_finished_run"),
    Fault("exchange", "runs/places.py", "[path for path in paths if is_intact(RunFolder(path))]", "list(paths)", f"{EXCHANGE}/test_bundle_mistakes.py::test_a_damaged_one_goes_after_a_finished_run"),
    Fault("exchange", "dream/small.py", "SHORTER = (1, 2, 4, 8)", "SHORTER = (1,)", f"{EXCHANGE}/test_bundle.py::test_a_video_is_made_as_small_as_asked_for"),
    Fault("exchange", "rem/controller.py", "side, side, products.shape[1])", "side, side, -1)", "tests/rem/test_controller.py"),
    Fault("exchange", "config/stored.py", "    if config.environment.arguments:\n", "    if False:\n", "tests/report/test_report.py::test_reference_scores_are_of_the_published_environment"),
    Fault("exchange", "config/stored.py", "(\"frame_skip\", \"time_limit_test_frames\")", "()", "tests/report/test_report.py::test_reference_scores_are_of_the_published_environment"),
    Fault("exchange", "exchange/card.py", " if is_published_environment(config) else None", "", f"{EXCHANGE}/test_bundle.py::test_the_card_gives_the_known_scores_of_a_game"),
    Fault("exchange", "report/collect.py", " or g in unpublished", "", "tests/report/test_report.py::test_games_that_the_published_lack_are_compared"),
    Fault("exchange", "report/stats.py", "None if game in raw else find_reference(game)", "find_reference(game)", "tests/report/test_report.py::test_a_game_that_is_raw_for_one_is_raw_for_all"),
    Fault("exchange", "runner.py", "    about = {\"instructions\": torch.backends.cpu.get_cpu_capability()} | about", "    pass", f"{EXCHANGE}/test_bundle.py::test_the_card_says_what_it_is_and_how_to_check_it"),
    # Numerics: retention
    Fault("numerics", "rem/retention.py", "self._powers(n - 1 - _index(n)[:, None])", "self._powers(n - _index(n)[:, None])", POP),
    Fault("numerics", "rem/retention.py", "self._powers(_index(n)[:, None] + 1)", "self._powers(_index(n)[:, None])", POP),
    Fault("numerics", "rem/retention.py", "self._powers((_index(n)[:, None] - _index(n)).clamp(min=0)).tril()", "self._powers((_index(n)[:, None] - _index(n)).abs())", POP),
    Fault("numerics", "rem/retention.py", "THETA_BASE = 10_000.0", "THETA_BASE = 1_000.0", POP),
    Fault("numerics", "rem/retention.py", "else torch.float32\n        full_key", "else like.dtype\n        full_key", POP),
    Fault("numerics", "rem/retention.py", "turns / self.head_dim**0.5", "turns", POP),
    Fault("numerics", "rem/retnet.py", "tuple(range(first, first + P))", "tuple(range(first - 1, first + P - 1))", POP),
    Fault("numerics", "rem/retnet.py", "ahead, tables, before = start + first * n,", "ahead, tables, before = start,", POP),
    Fault("numerics", "rem/retnet.py", "(*range(0, T, c), *before,", "(*range(-(-T // c)), *before,", POP),
    Fault("numerics", "rem/retnet.py", '        real["v"] = _kept(real["v"], keep)\n', "", POP),
    Fault("numerics", "rem/retnet.py", "eps=layer.retention.group_norm.eps", "eps=1e-2", POP),
    Fault("numerics", "rem/retention.py", "writing.block * states[-1]", "states[-1]", POP),
    Fault("numerics", "rem/retnet.py", "dropout(x, self.dropout, self.training, key)", "dropout(x, self.dropout, False, key)", POP),
    Fault("numerics", "rem/retnet.py", "self._drop(torch.cat([piece.flatten(2, 3).to(gate.dtype) for piece in pieces], dim=2), of_retained)", "torch.cat([piece.flatten(2, 3).to(gate.dtype) for piece in pieces], dim=2)", POP),
    Fault("numerics", "rem/retnet.py", "self.ffn_activation(_linear", "F.silu(_linear", POP),
    # Numerics: the world model
    Fault("numerics", "rem/world_model.py", "(block >= context)[None], (block >= context)[None]", "(block > context)[None], (block >= context)[None]", M),
    Fault("numerics", "rem/world_model.py", "(block >= context - 1)[None] | starts", "(block >= context)[None] | starts", M),
    Fault("numerics", "rem/world_model.py", "rewarded & segment.real", "rewarded", M),
    Fault("numerics", "rem/world_model.py", "flatten(1, 2)[:, :-1], (0, 0, 1, 0))", "flatten(1, 2)[:, 1:], (0, 0, 0, 1))", M),
    Fault("numerics", "rem/world_model.py", "state.position + 1 + i", "state.position + i", M),
    Fault("numerics", "rem/world_model.py", "self.sequence_model(blocks, state, keep=real, **pruned)", "self.sequence_model(blocks, state, **pruned)", M),
    Fault("numerics", "rem/world_model.py", "code_vectors), (T - 1) * self.block_len", "code_vectors), (T - 2) * self.block_len", M),
    Fault("numerics", "rem/world_model.py", "self.reward_head(at_action), streams.outcomes) - 1", "self.reward_head(at_action), streams.outcomes) * -1 + 1", M),
    Fault("numerics", "rem/world_model.py", "0.0).sum() / num_unmasked.clamp(min=1)", "0.0).sum() / mask.numel()", M),
    Fault("numerics", "rem/world_model.py", "sample_categorical(self.observation_head(out.predicted[:, 0]), streams.observations)", "sample_categorical(self.observation_head(out.predicted[:, 0]), streams.observations, 0.5)", C),
    # Numerics: the controller and imagination
    Fault("numerics", "rem/returns.py", "(1 - lambda_) * values[:, t + 1] + lambda_ * result", "(1 - lambda_) * values[:, t] + lambda_ * result", C),
    Fault("numerics", "rem/returns.py", "discount * (1 - ends.to(values.dtype))", "discount + 0 * ends.to(values.dtype)", C),
    Fault("numerics", "rem/imagination.py", "-mean(log_prob * (returns", "mean(log_prob * (returns", C),
    Fault("numerics", "rem/imagination.py", "-c.entropy_weight * mean(entropy)", "c.entropy_weight * mean(entropy)", C),
    Fault("numerics", "rem/imagination.py", "world_model.step(model_state, action, streams)", "world_model.step(model_state, action * 0, streams)", C),
    Fault("numerics", "rem/imagination.py", "(f + 1) % every", "f % every", C),
    Fault("numerics", "rem/imagination.py", '+ (config.imagination.burn_in_action_every == "block")', "+ 1", C),
    Fault("numerics", "rem/imagination.py", 'trained = rule.burn_in_actions == "published" and', "trained = False and", C),
    Fault("numerics", "rem/controller.py", "features[:, f], frozen=True)", "features[:, f])", C),
    Fault("numerics", "rem/controller.py", "value=len(products) // 9 - 1", "value=0", C),
    Fault("numerics", "rem/controller.py", "grids.unfold(1, 3, 1).unfold(2, 3, 1)", "grids.unfold(2, 3, 1).unfold(1, 3, 1)", C),
    Fault("numerics", "config/agent.py", "given[-1] << i for i", "given[-1] for i", V),
    Fault("numerics", "rem/imagination.py", "over = ends.float().cumsum(1) - ends.float()", "over = ends.float().cumsum(1)", C),
    Fault("numerics", "rem/imagination.py", "(x * weight).sum() / weight.sum()", "(x * weight).mean()", C),
    Fault("numerics", "rem/imagination.py", "sample_categorical(policy.logits.detach(), streams.actions)", "sample_categorical(policy.logits.detach(), streams.actions, 0.5)", C),
    Fault("numerics", "rem/imagination.py", "controller.record_action(state, action)", "controller.record_action(state, action.flip(0))", C),
    Fault("numerics", "rem/controller.py", "            new = self._advance(state, features[:, f], frozen=True)\n            if feed_action[f]:\n                with torch.set_grad_enabled(trains):\n                    new = self.record_action(new, actions[:, f])\n", "            new = self.record_action(state, actions[:, f]) if feed_action[f] else state\n            new = self._advance(new, features[:, f], frozen=True)\n", C),
    Fault("numerics", "rem/controller.py", "with torch.autocast(features.device.type, enabled=False)", "with torch.autocast(features.device.type, enabled=torch.is_autocast_enabled('cpu'))", C),
    Fault("numerics", "rem/controller.py", "        with torch.no_grad():\n            features", "        if True:\n            features", C),
    Fault("numerics", "rem/controller.py", "state = new.where(real[:, f], state)", "state = new", C),
    Fault("numerics", "rem/controller.py", "with torch.autocast(state.h.device.type, enabled=False)", "with torch.autocast(state.h.device.type, enabled=torch.is_autocast_enabled('cpu'))", C),
    Fault("numerics", "rem/sampling.py", "logits.float() / temperature", "logits.float()", C),
    # Numerics: IRIS
    Fault("numerics", "iris/transformer.py", "position = torch.arange(start, start + T * n", "position = torch.arange(T * n", IRIS),
    Fault("numerics", "iris/transformer.py", "return (index <= row)[None, None]", "return (index <= row + 1)[None, None]", IRIS),
    Fault("numerics", "iris/transformer.py", "is_causal=mask is None and x.shape[1] > 1", "is_causal=False", IRIS),
    Fault("numerics", "iris/transformer.py", "if tip[0] != self.length or end", "if end", IRIS),
    Fault("numerics", "iris/transformer.py", " & visible[:, None, :]", "", IRIS),
    Fault("numerics", "iris/vqgan.py", "if size in config.attention_resolutions", "if size not in config.attention_resolutions", IRIS),
    Fault("numerics", "rem/world_model.py", "        state = self._with_room(state)\n", "", IRIS),
    Fault("numerics", "rem/world_model.py", "    if first == 0:\n", "    if False:\n", IRIS),
    Fault("numerics", "rem/world_model.py", "        elif self.config.loss_rule == \"all_positions\":\n", "        elif False:\n", IRIS),
    # Numerics: the tokenizer and its losses
    Fault("numerics", "rem/tokenizer.py", "(codes - latents).detach()", "(codes - latents)", V),
    Fault("numerics", "rem/tokenizer.py", "F.mse_loss, codes, latents.detach()", "F.mse_loss, codes, latents", V),
    Fault("numerics", "rem/tokenizer.py", "- 2 * flat @ table.T", "- flat @ table.T", V),
    Fault("numerics", "rem/tokenizer.py", "with torch.autocast(flat.device.type, enabled=False), torch.no_grad():", "with torch.no_grad():", V),
    Fault("numerics", "rem/tokenizer.py", "nn.ZeroPad2d((0, 1, 0, 1))", "nn.ZeroPad2d((1, 0, 1, 0))", V),
    Fault("numerics", "rem/perceptual.py", "\nSCALE = (0.458,", "\nSCALE = (0.485,", f"{LPIPS}::test_it_is_its_definition_whatever_the_weights"),
    Fault("numerics", "rem/perceptual.py", "0.01 * squared.amax(1)", "0.1 * squared.amax(1)", LPIPS),
    Fault("numerics", "rem/perceptual.py", "squared.mean(dim=(2, 3))", "squared.sum(dim=(2, 3))", LPIPS),
    Fault("numerics", "rem/perceptual.py", "_EXACT_LEVELS = 2", "_EXACT_LEVELS = 0", f"{LPIPS}::test_near_images_have_the_gradient_that_exact_first_levels_give"),
    Fault("numerics", "rem/perceptual.py", "_EXACT_LEVELS = 2", "_EXACT_LEVELS = 1", LPIPS),
    Fault("numerics", "rem/perceptual.py", "i == _EXACT_LEVELS and self.training and", "i == _EXACT_LEVELS and", LPIPS),
    Fault("numerics", "rem/perceptual.py", "_unit_length(x.to(self.shift.dtype))", "_unit_length(x)", LPIPS),
    # Protocol
    Fault("protocol", "envs/atari.py", "BILINEAR", "NEAREST", ATARI),
    Fault("protocol", "envs/atari.py", "on_last_frame and not was_over", "on_last_frame", ATARI),
    Fault("protocol", "train/trainer.py", 'c.controller_memory == "burned_in" and', "False and", "tests/train/test_trainer.py"),
    Fault("protocol", "train/trainer.py", 'c.untrained_policy == "controller" or', "", "tests/train/test_trainer.py"),
    Fault("protocol", "rem/means.py", "x.masked_fill(~present, 0.0).sum() / present.sum()", "x.mean()", "tests/train/test_short_batches.py"),
    Fault("protocol", "replay/buffer.py", "real & (at != NONE)[..., None]", "real", "tests/replay tests/train/test_short_batches.py"),
    Fault("protocol", "replay/sampling.py", "rng.permutation(admissible)", "rng.choice(admissible, len(admissible))", "tests/replay"),
    Fault("protocol", "replay/sampling.py", "rng.integers(len(first), size=shape)", "np.zeros(shape, np.int64)", "tests/replay"),
    Fault("protocol", "envs/atari.py", "if self._late_game_over and", "if", ATARI),
    Fault("protocol", "envs/atari.py", "self._ended() and not self._dead_starts", "self._ended()", ATARI),
    Fault("numerics", "rem/tokenizer.py", 'self.config.reconstruction == "l1"', 'self.config.reconstruction != "l1"', V),
    Fault("numerics", "rem/retention.py", 'if kind == "power_of_two":', 'if kind != "power_of_two":', POP),
    Fault("numerics", "rem/retnet.py", 'self.has_equal_layers = config.layer_init == "copies"', "self.has_equal_layers = False", POP),
    Fault("numerics", "rem/world_model.py", "num_vectors + config.spare_prediction_token", "num_vectors", M),
    Fault("numerics", "config/schema.py", 'self.imagination.imagined_steps == "text"', "False", C),
    Fault("numerics", "config/schema.py", ' - (self.imagination.last_step == "unused")', "", C),
    Fault("numerics", "rem/imagination.py", "step_weights(trajectory.ends) if config.imagination.mask_after_end else", "", C),
    Fault("protocol", "train/acting.py", " if self.executed_action_to_controller else own", "", ACTING),
    Fault("protocol", "train/phases.py", 'min_before = 2 if config.imagination.imagine_from == "third_frame" else 0', "min_before = 0", PHASES),
    Fault("protocol", "train/trainer.py", 'seeded = self.config.environment.seeding == "seeded"', "seeded = True", RUN),
    Fault("protocol", "envs/__init__.py", "        late_game_over=environment.late_game_over,\n", "", ENVS),
    Fault("protocol", "envs/__init__.py", "        dead_starts=environment.dead_starts,\n", "", ENVS),
    Fault("protocol", "train/trainer.py", "Collector(env, config.environment.time_limit_ends)", "Collector(env)", RUN),
    Fault("protocol", "config/agent.py", "given[:1] * more", "given[-1:] * more", V),
    Fault("protocol", "train/phases.py", "(steps, phase.batch_size), agent.config.training.sampling", '(steps, phase.batch_size), "steps"', PHASES),
    Fault("protocol", "train/phases.py", 'config.min_segment_blocks, random.numpy("batches"), by)', 'config.min_segment_blocks, random.numpy("batches"))', PHASES),
    Fault("protocol", "train/phases.py", 'min_before, random.numpy("batches"), by)', 'min_before, random.numpy("batches"))', PHASES),
    Fault("protocol", "replay/sampling.py", "rng.integers(count[episode])", "0 * rng.integers(count[episode])", "tests/replay"),
    Fault("protocol", "variants.py", '"training.sampling": "episodes"', '"training.sampling": "passes"', PRESETS),
    Fault("protocol", "variants.py", '"evaluation.every_epochs": 5', '"evaluation.every_epochs": 10', PRESETS),
    Fault("protocol", "variants.py", '"tokenizer.lpips_head_dropout": True', '"tokenizer.lpips_head_dropout": False', PRESETS),
    Fault("protocol", "train/build.py", '"head_dropout": config.tokenizer.lpips_head_dropout', '"head_dropout": False', PHASES),
    Fault("protocol", "train/schedule.py", "epoch % config.evaluation.every_epochs == 0", "epoch % 10 == 0", RUN),
    Fault("protocol", "config/schema.py", "final_episodes: int = option(100,", "final_episodes: int = option(104,", PRESETS),
    Fault("protocol", "runner.py", 'config.training.num_epochs, config.evaluation.final_episodes', 'config.training.num_epochs, config.evaluation.num_episodes', DAMAGE),
    Fault("protocol", "envs/__init__.py", "training and environment.end_on_life_loss", "environment.end_on_life_loss", "tests/envs"),
    Fault("protocol", "config/schema.py", "sticky_probability: float = option(0.0,", "sticky_probability: float = option(0.25,", ENVS),
    Fault("protocol", "config/schema.py", "option(108_000,", "option(27_000,", ENVS),
    Fault("protocol", "config/schema.py", "end_on_life_loss: bool = option(True", "end_on_life_loss: bool = option(False", ENVS),
    Fault("protocol", "config/agent.py", "learning_rate=2e-4", "learning_rate=1e-4", CONFIG),
    Fault("protocol", "config/agent.py", "gradient_clip=100.0", "gradient_clip=10.0", CONFIG),
    Fault("protocol", "train/evaluate.py", 'env.reset(random.numpy("reset", e.index))', 'env.reset(random.numpy("reset", 0))', ACTING),
    Fault("protocol", "train/evaluate.py", "self.total_return += result.reward", "self.total_return += float(np.sign(result.reward))", ACTING),
    Fault("protocol", "train/evaluate.py", "training=False", "training=True", ACTING),
    Fault("protocol", "train/evaluate.py", "trained, config.evaluation.temperature", "trained, config.collection.temperature", ACTING),
    Fault("protocol", "train/evaluate.py", "state = reset_rows(state, policy.initial_state(len(envs)), over)", "pass", ACTING),
    Fault("protocol", "train/collector.py", "(result.truncated and self.time_limit_ends)", "result.truncated", ACTING),
    Fault("protocol", "train/collector.py", "steps.rewards[i] = result.reward", "steps.rewards[i] = np.sign(result.reward)", ACTING),
    Fault("protocol", "train/collector.py", "                self.controller_state = policy.initial_state(1)\n", "                self.controller_state = self.controller_state or policy.initial_state(1)\n", ACTING),
    Fault("protocol", "train/acting.py", "u_explore < self.epsilon", "u_explore > self.epsilon", ACTING),
    Fault("protocol", "train/acting.py", "return self.agent.controller.record_action(state, told), executed", "self.agent.controller.record_action(state, told)\n        return state, executed", ACTING),
    Fault("protocol", "train/build.py", "frames.unflatten(0, codes", "frames.flip(0).unflatten(0, codes", ACTING),
    Fault("protocol", "train/trainer.py", "            c.temperature,\n            c.epsilon,\n", "            1.0,\n            0.0,\n", RUN),
    Fault("protocol", "train/schedule.py", "return epoch > config.controller.training.start_after_epoch", "return epoch > config.controller.training.start_after_epoch + 1", RUN),
    # Training
    Fault("training", "train/phases.py", "    buffer.forget_tokens()\n", "", PHASES),
    Fault("training", "train/phases.py", "    world_model.train()\n", "", PHASES),
    Fault("training", "train/learner.py", "imagine(agent.world_model, agent.controller, agent.view, start, codes, config, streams)\n", "imagine(agent.world_model.train(), agent.controller, agent.view, start, codes, config, streams)\n            agent.world_model.eval()\n", PHASES),
    Fault("training", "train/phases.py", "    learner.image_loss.train()\n", "", PHASES),
    Fault("training", "train/phases.py", "    learner.image_loss.eval()\n", "", PHASES),
    Fault("training", "train/workload.py", 'self.image_loss.train(phase == "tokenizer")', "self.image_loss.eval()", PHASES),
    Fault("training", "train/build.py", 'deep_type = torch.bfloat16 if config.runtime.precision == "bf16"', "deep_type = torch.bfloat16 if True", PHASES),
    Fault("training", "train/build.py", "require_lpips(log), **lpips_options(config))", "require_lpips(log))", PHASES),
    Fault("training", "train/learner.py", "clip_grad_norm_(module.parameters(), clip)", "clip_grad_norm_(module.parameters(), float('inf'))", PHASES),
    Fault("training", "train/phases.py", 'Randomness(agent.config.seed, epoch, "tokenizer")', 'Randomness(agent.config.seed, 0, "tokenizer")', PHASES),
    Fault("training", "train/phases.py", 'Randomness(config.seed, epoch, "world_model")', 'Randomness(config.seed, 0, "world_model")', PHASES),
    Fault("training", "train/phases.py", 'Randomness(config.seed, epoch, "controller")', 'Randomness(config.seed, 0, "controller")', PHASES),
    Fault("training", "train/build.py", 'if phase.optimizer == "adamw" else', 'if phase.optimizer == "adam" else', PHASES),
    Fault("training", "train/phases.py", "min_before = 2 if", "min_before = 1 if", PHASES),
    Fault("training", "train/schedule.py", "epoch == phase.start_after_epoch + 1)", "epoch == phase.start_after_epoch)", PHASES),
    Fault("training", "train/build.py", "nn.LayerNorm | nn.GroupNorm | nn.Embedding", "nn.LayerNorm | nn.GroupNorm", PHASES),
    Fault("training", "replay/buffer.py", "offset < self.episodes.remaining[starts][..., None]", "offset <= self.episodes.remaining[starts][..., None]", BUFFER),
    Fault("training", "replay/buffer.py", "offset + self.episodes.before[current][..., None] >= 0", "offset + current[..., None] >= 0", BUFFER),
    Fault("training", "replay/sampling.py", "episodes.remaining >= min_blocks", "episodes.remaining > min_blocks", BUFFER),
    # Isolation
    Fault("isolation", "variants.py", '"controller.observes": "frames"})', '"controller.observes": "frames", "controller.hidden_dim": 32})', "tests/test_isolation.py"),
    Fault("isolation", "variants.py", " if key not in SHARED_WITH_REM}", "}", "tests/config"),
    Fault("isolation", "rem/world_model.py", "        if self.pop:\n            num_vectors", "        if True:\n            num_vectors", "tests/test_isolation.py"),
    Fault("isolation", "rem/controller.py", "if config.action_inputs:\n            self.action_embedding", "if True:\n            self.action_embedding", "tests/test_isolation.py"),
    Fault("isolation", "train/initial.py", "manual_seed(self.seeds[id(filled)])", "manual_seed(self.seeds[id(filled)]) if False else None", "tests/test_isolation.py"),
    Fault("isolation", "train/initial.py", 'random.stream_seed("initial weights", name)', 'random.stream_seed("initial weights")', "tests/test_isolation.py"),
    Fault("isolation", "train/initial.py", "else kwargs.get(\"tensor\")", "else None", "tests/test_isolation.py"),
    Fault("isolation", "rem/imagination.py", "streams.actions)", "streams.observations)", PAIRED),
    Fault("isolation", "rem/world_model.py", "self.reward_head(at_action), streams.outcomes)", "self.reward_head(at_action), streams.observations)", PAIRED),
    Fault("isolation", "train/collector.py", "self.env.reset(resets)", "self.env.reset(acting[0])", ACTING),
    Fault("isolation", "train/evaluate.py", "[acting[episode.index] for episode in running]", "[acting[0] for episode in running]", ACTING),
    Fault("isolation", "train/acting.py", "stream.random(3) for stream in streams", "streams[0].random(3) for stream in streams", ACTING),
    Fault("isolation", "train/phases.py", 'random.seed_imagination(learner.streams)', 'pass', RESUME),
    Fault("isolation", "rem/retnet.py", "layer.load_state_dict(self.decoder.layers[0].state_dict())", "pass", "tests/train/test_initial.py"),
    # Resume and faults
    Fault("resume", "train/trainer.py", "        self.log.rewind(self.epoch)\n", "", DAMAGE),
    Fault("resume", "train/trainer.py", '        self.collector.set_state(loaded.trainer["collector"], self.device)\n', "", RESUME),
    Fault("resume", "train/trainer.py", "            optimizer.load_state_dict(", "            print(", RESUME),
    Fault("resume", "train/trainer.py", "range(1, min(self.epoch, ", "range(2, min(self.epoch, ", RESUME),
    Fault("resume", "train/seeding.py", "torch.manual_seed(self.stream_seed(*purpose))", "pass", RESUME),
    Fault("resume", "train/trainer.py", "        if num_steps(self.config.world_model.training, epoch) or num_steps(self.config.controller.training, epoch):\n", "        if num_steps(self.config.world_model.training, epoch):\n", RESUME),
    Fault("resume", "train/trainer.py", "if not loaded and len(logged) > 1:", "if False:", DAMAGE),
    Fault("resume", "train/trainer.py", 'Randomness(self.config.seed, epoch, "collect")', 'Randomness(self.config.seed, 0, "collect")', RUN),
    Fault("resume", "train/trainer.py", "        self.log.append(epoch, metrics)\n        agent, trainer = self.agent.state_dict(), self._state()\n        now = self.config.runtime.precision\n        self.precisions = (*(before for before in self.precisions if before != now), now)\n        hashed = config_hash(self.config)\n        checkpoint.save(self.folder, epoch, hashed, agent, trainer, self.tests.needed, self.precisions)\n", "        agent, trainer = self.agent.state_dict(), self._state()\n        now = self.config.runtime.precision\n        self.precisions = (*(before for before in self.precisions if before != now), now)\n        hashed = config_hash(self.config)\n        checkpoint.save(self.folder, epoch, hashed, agent, trainer, self.tests.needed, self.precisions)\n        self.log.append(epoch, metrics)\n", RUN),
    Fault("resume", "train/restoring.py", "    if newest.epoch > config.collection.last_epoch:", "    if True:", DAMAGE),
    Fault("resume", "train/trainer.py", "if not is_newest:", "if False:", DAMAGE),
    Fault("resume", "train/restoring.py", "if same_run(found, now, run.config):", "if True:", DAMAGE),
    Fault("identity", "config/stored.py", "return a == b or {a, b} <= set(known_hashes(path))", "return a == b", EARLIER),
    Fault("identity", "config/hashing.py", "or value != base[key]", "or value != keys()[key]", CONFIG),
    Fault("identity", "config/stored.py", "return build({**baseline(), **given})", "return build(given)", CONFIG),
    Fault("identity", "config/stored.py", "return (*_todays_hash(path, about.st_mtime_ns, about.st_size), *stated)", "return stated", CONFIG),
    Fault("identity", "config/stored.py", 'runtime | {"precision": precision}', "runtime", CONFIG),
    Fault("identity", "config/hashing.py", "if key not in idle}", "}", CONFIG),
    Fault("identity", "config/stored.py", 'if config.training.random_streams == "named":', "if True:", EARLIER),
    Fault("identity", "sweep/launch.py", 'if any(state.status != "blocked" for state in look.states.values()):', "if True:", EARLIER),
    Fault("identity", "config/hashing.py", "if _text(value) != _text(y[key])", "if value != y[key]", ARGUMENTS),
    Fault("identity", "config/effects.py", 'yield family != "gym", "only gym:', 'yield False, "only gym:', ARGUMENTS),
    Fault("identity", "config/resolve.py", "deepcopy(value)  #", "value  #", ARGUMENTS),
    Fault("hostile", "config/arguments.py", "math.isfinite(value)", "True", ARGUMENTS),
    Fault("hostile", "config/arguments.py", "if not any(_clash(key, other) for other in upper)", "", ARGUMENTS),
    Fault("protocol", "envs/__init__.py", "        arguments=environment.arguments,\n", "", ARGUMENTS),
    Fault("protocol", "envs/making.py", "deepcopy(dict(arguments))", "dict(arguments)", ARGUMENTS),
    Fault("stopping", "stopping.py", "elif self.is_finishing:", "elif False:", STOPPING),
    Fault("stopping", "stopping.py", "elif signum == signal.SIGINT:", "elif False:", STOPPING),
    Fault("stopping", "stopping.py", "signum if signum in STOP_SIGNALS else None", "signum", STOPPING),
    Fault("stopping", "stopping.py", "elif time.monotonic() - since > self._grace_s:", "elif False:", STOPPING),
    Fault("identity", "sweep/observe.py", "identity not in found", "identity != found[-1]", EARLIER),
    Fault("identity", "sweep/records.py", "return replace(ref, config_hash=known[0])", "return ref", EARLIER),
    Fault("precision", "precision.py", "chosen = asked if asked", "chosen = native if asked", PRECISION),
    Fault("precision", "precision.py", "before or native", "native", PRECISION),
    Fault("precision", "precision.py", 'if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):', "if False:", PRECISION),
    Fault("precision", "runner.py", "write_atomic(run.config, to_yaml(asked))", "write_atomic(run.config, to_yaml(config))", PRECISION),
    Fault("resume", "train/collector.py", "ControllerState(*(t.to(device) for t in kept))", "ControllerState(*(torch.zeros_like(t).to(device) for t in kept))", RESUME),
    Fault("resume", "runner.py", "    truncate_jsonl(run.episodes, lambda entry: entry[\"kind\"] != \"final\")\n", "", DAMAGE),
    Fault("resume", "runner.py", "    write_json(run.result, result)\n", "    run.result.write_text(json.dumps(result))\n", "tests/train/test_boundary_faults.py"),
    Fault("resume", "runs/files.py", "        raise machine_error(error, action, path) from error", "        return", "tests/train/test_boundary_faults.py"),
    Fault("resume", "train/checkpoint.py", "key=lambda path: (_epoch_of(path), not", "key=lambda path: (path.stat().st_mtime, not", RESUME),
    Fault("resume", "runner.py", "refuse_other_configuration(run, config)\n        if", "if", RESUME),
    Fault("resume", "runs/lock.py", "_flock(fd, fcntl.LOCK_EX, path)", "_flock(fd, fcntl.LOCK_SH, path)", RUNS),
    Fault("resume", "runs/files.py", "os.replace(", "shutil.copy(", f"{RUNS} {CHECKPOINT}"),
    Fault("resume", "train/checkpoint.py", "map_location=device, weights_only=True", "map_location=device, weights_only=False", CHECKPOINT),
    # Hostile input
    Fault("hostile", "config/section.py", "allow_inf_nan=False", "allow_inf_nan=True", CONFIG),
    Fault("hostile", "config/section.py", 'extra="forbid"', 'extra="ignore"', f"{CONFIG} {CLI}"),
    Fault("hostile", "replay/store.py", "allow_pickle=False", "allow_pickle=True", BUFFER),
    Fault("hostile", "config/yaml12.py", 'getattr(event, "anchor", None)', "None", CONFIG),
    Fault("hostile", "config/resolve.py", "_REPR.repr(value)", "repr(value)", CONFIG),
    Fault("house", "rem/tokenizer.py", "float (..., 3, H, W) in [-1, 1] to uint8 (..., H, W, 3)", "Floats to pixels", "tests/test_layers.py"),
    Fault("house", "rem/returns.py", "import torch\n", "import torch\n\nimport remctl.envs\n", "tests/test_layers.py"),
    Fault("house", "rem/returns.py", "import torch\n", "import torch\n\nfrom ..envs import make_env  # noqa\n", "tests/test_layers.py"),
    # Tests beside training
    Fault("captured", "train/captured.py", "            place.copy_(x)\n", "            pass\n", CAPTURED),
    Fault("captured", "train/captured.py", "        self._recorded.replay()\n", "", CAPTURED),
    Fault("captured", "train/captured.py", "            self._calls += 1\n", "            self._calls += 1\n            self._step(*inputs)\n", CAPTURED),
    Fault("captured", "train/captured.py", 'if config.runtime.compile == "off":', "if False:", CAPTURED),
    Fault("captured", "train/captured.py", "layer_work(config) >= LEAST_REPAID_WORK", "True", CAPTURED),
    Fault("captured", "train/captured.py", "is_retnet and layer_work", "layer_work", CAPTURED),
    Fault("captured", "train/captured.py", 'with_tokenizer=device.type == "cuda"', "", CAPTURED),
    Fault("captured", "train/captured.py", "with compiled(), _remedy(TorchDynamoException):", "with compiled():", CAPTURED),
    Fault("captured", "train/captured.py", 'group["capturable"] = False', "pass", CAPTURED),
    Fault("captured", "rem/retention.py", "a * cosine - b * sine, a * sine + b * cosine", "a * cosine + b * sine, a * sine + b * cosine", CAPTURED),
    Fault("captured", "rem/retention.py", 'return self._get(("rotation", begins, n, in_halves), like, build)', "return build().to(like.device, torch.float32)", CAPTURED),
    Fault("captured", "rem/world_model.py", "losses.masked_fill(~mask.flatten(), 0.0).sum()", "losses[mask.flatten()].sum()", CAPTURED),
    Fault("captured", "rem/retention.py", "rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2)", "rows.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2)", CAPTURED),
    Fault("captured", "rem/retnet.py", 'self.is_compiled and name in "qk"', 'self.is_compiled and name in "q"', CAPTURED),
    Fault("captured", "rem/retnet.py", "(product + bias)", "(product)", CAPTURED),
    Fault("captured", "rem/retnet.py", "retained), of_out)", "retained), of_retained)", CAPTURED),
    Fault("captured", "rem/retnet.py", "layer.norm2(x))), of_hidden)", "layer.norm2(x))), of_out)", CAPTURED),
    Fault("captured", "rem/retnet.py", "if not self.is_compiled or not self.training or", "if not self.training or", CAPTURED),
    Fault("speed", "dropout.py", "x = x ^ key[1]", "x = x ^ key[0]", DROPOUT),
    Fault("speed", "dropout.py", "dtype=torch.int32, device=key.device) ^ key[0]", "dtype=torch.int32, device=key.device)", DROPOUT),
    Fault("speed", "dropout.py", "2**31 / (2**31 - threshold)", "1.0", DROPOUT),
    Fault("speed", "dropout.py", "hashed_bits(x.shape, key) < threshold, 0.0", "hashed_bits(x.shape, key) < threshold // 2, 0.0", DROPOUT),
    Fault("overlap", "train/background.py", "settings.apply()", "pass", OVERLAP),
    Fault("overlap", "train/background.py", "    threading.Thread(target=_end_with_the_trainer, daemon=True).start()\n", "", OVERLAP),
    Fault("overlap", "train/background.py", "        signal.signal(signum, signal.SIG_IGN)", "        pass", OVERLAP),
    Fault("overlap", "train/background.py", "            self._process.kill()\n", "            pass\n", OVERLAP),
    Fault("overlap", "train/background.py", "            check()  # a signal to both is no failure\n", "", OVERLAP),
    Fault("overlap", "train/background.py", "load_agent(settings.run, epoch)", "load_agent(settings.run)", OVERLAP),
    Fault("overlap", "train/overlap.py", "return () if self.waiting is None else (self.waiting,)", "return ()", OVERLAP),
    Fault("overlap", "train/overlap.py", "        self.agent.load_state_dict(now)\n", "", OVERLAP),
    Fault("overlap", "train/testing.py", "min(epoch + config.evaluation.every_epochs, config.training.num_epochs)", "epoch + config.evaluation.every_epochs", OVERLAP),
    Fault("overlap", "train/testing.py", " and last not in tested", "", OVERLAP),
    Fault("overlap", "train/trainer.py", "            self.log.append(epoch, test.metrics)\n", "            pass\n", OVERLAP),
    Fault("overlap", "report/curves.py", "epoch_of(entry, metric)", 'entry.get("epoch")', "tests/report/test_spec_and_cli.py"),
    # Reports
    Fault("report", "report/score_files.py", "if values and at.episodes:", "if False:", "tests/report/test_scores.py -k no_runs"),
    Fault("report", "report/stats.py", "num_runs * num_runs / (num_runs - 1) * (POWER", "num_runs * (POWER", "tests/report/test_stats.py"),
    Fault("report", "report/stats.py", "None if value == 0 else (value < 0) ==", "(value < 0) ==", "tests/report/test_stats.py"),
    Fault("report", "report/published.py", '{name, "rem"} if name == "REM" else {name}', "{name}", "tests/report/test_report.py"),
    Fault("report", "report/runs.py", "            if folder.resolve() not in self.folders:\n", "            if True:\n", "tests/report/test_runs.py"),
    Fault("report", "report/bootstrap.py", "- np.maximum(upto - weights, 0.25)", "- np.maximum(upto - weights, 0.0)", "tests/report/test_bootstrap.py"),
    Fault("report", "report/tables.py", '+ f" ({s.num_runs})" * (name in uneven)', "", "tests/report/test_tables.py"),
    Fault("report", "report/numbers.py", "abs(value) < MAX_NUMBER", "value == value", "tests/report/test_scores.py"),
    Fault("report", "report/notes.py", "    if len(set(each.values())) > 1:\n", "    if False:\n", "tests/report/test_tables.py"),
    Fault("report", "report/write.py", "    for name in earlier:\n        remove(out / name)\n", "", "tests/report/test_output_folder.py"),
    Fault("report", "report/colors.py", 'if agent is None or (algorithm.origin != "published" and agent in first):', "if agent is None or True:", "tests/report/test_colors.py"),
    # Score files, the terminal, longer runs
    Fault("input", "report/score_files.py", "if other.game != entry.game and None in (other.seed, entry.seed):", "if False:", "tests/report/test_scores.py"),
    Fault("input", "report/scores.py", "if entry.step != first.step:", "if False:", "tests/report/test_scores.py"),
    Fault("input", "report/scores.py", "if score is None:", "if False:", "tests/report/test_scores.py"),
    Fault("input", "report/score_names.py", "_text(before) != _text(value)", "False", "tests/report/test_scores.py"),
    Fault("input", "report/score_names.py", "if is_of_several and", "if False and", "tests/report/test_scores.py"),
    Fault("input", "report/score_files.py", "(len(lists) > 1)", "0", "tests/report/test_scores.py"),
    Fault("input", "runs/layout.py", " or _lost_its_config(Path(folder), names)", "", "tests/report/test_spec_and_cli.py"),
    Fault("input", "report/export.py", "tuple(missing_notes(missing))", "()", "tests/report/test_spec_and_cli.py"),
    Fault("input", "commands/output.py", "else NO_LIMIT\n", "else 80\n", "tests/cli/test_output.py"),
    Fault("input", "commands/output.py", "if len(set(brief)) == len(set(cells))", "if True", "tests/cli/test_output.py"),
    Fault("input", "drawing.py", "if count > 1:", "if False:", "tests/report/test_figures.py"),
    Fault("input", "envs/modules.py", "            sys.path.append(here)\n", "", "tests/cli/test_failures.py"),
    Fault("input", "train/continuing.py", "    if collected != wanted:\n", "    if False:\n", "tests/train/test_continuing.py"),
    Fault("input", "train/continuing.py", "sorted(differing(before, config).keys() - set(LENGTHS))", "[]", "tests/train/test_continuing.py"),
    # Ablations
    Fault("sweep", "sweep/plan.py", "state.failures >= rules.max_failures", "state.failures > rules.max_failures", SWEEP),
    Fault("sweep", "sweep/plan.py", "if twin is not run:", "if False:", SWEEP),
    Fault("sweep", "sweep/observe.py", "still_open = [end for end in ends if end.status in OPEN]", "still_open = ends[:0]", SWEEP),
    Fault("sweep", "sweep/observe.py", "if end.submission not in forgiven]", "]", SWEEP),
    Fault("sweep", "sweep/observe.py", "if job is None and not end.started and log is None:", "if job is None:", SWEEP),
    Fault("sweep", "sweep/observe.py", "return (True, is_own and is_again(folder), *usual)", "return (folder.path,)", SWEEP),
    Fault("sweep", "sweep/schedulers.py", '"PREEMPTED", "TIMEOUT", ', '"PREEMPTED", ', SWEEP),
    Fault("sweep", "sweep/schedulers.py", "int(high or low) + 1)", "int(high or low))", SWEEP),
    Fault("sweep", "sweep/schedulers.py", "if known.get(key) != s.state]", "]", SWEEP),
    Fault("sweep", "sweep/job.py", "if status == InUseError.exit_code:", "if False:", SWEEP),
    Fault("sweep", "sweep/job.py", "if len(fruitless) >= MAX_FRUITLESS_STARTS:", "if False:", SWEEP),
    Fault("sweep", "sweep/job.py", "or failed or self.is_cancelled", "or failed", SWEEP),
    Fault("sweep", "sweep/clients.py", "if name in KEPT or not FILTERS.match(name)", "if name", f"{COMMANDS} -k no_variable"),
    Fault("sweep", "sweep/clients.py", "if not marked or any(", "if any(", f"{COMMANDS} -k another_form"),
    Fault("sweep", "sweep/schedulers.py", "self.state not in ENDS and", 'self.state in ("PENDING", "RUNNING") and', f"{COMMANDS} -k nobody_knows"),
    Fault("sweep", "sweep/slurm.py", "if found is None:", "if True:", f"{COMMANDS} -k does_not_name"),
    Fault("sweep", "sweep/launch.py", "target = target or target_of(options)", "target = target_of(options)", f"{COMMANDS} -k waiting"),
    Fault("sweep", "sweep/records.py", "name = self.experiment or", "name =", MOVED),
    Fault("sweep", "runs/places.py", "iter(done or found)", "iter(found)", MOVED),
    Fault("sweep", "runs/lock.py", "if writers & ~mode:", "if False:", RUNS),
    Fault("sweep", "sweep/local.py", "Slot(places[i % len(places)], ", "Slot(places[0], ", "tests/sweep/test_local.py"),
    Fault("sweep", "sweep/profile.py", '(parts["s"] > 0)', "0", "tests/sweep/test_profile.py"),
    Fault("sweep", "sweep/profile.py", "exit $status'", "true'", "tests/sweep/test_profile.py"),
    Fault("sweep", "sweep/hours.py", "epochs = ref.num_epochs - state.progress.epoch", "epochs = ref.num_epochs", "tests/cli/test_sweep_verbs.py"),
    Fault("sweep", "sweep/hours.py", "counted is None or ref.config_hash in counted", "True", "tests/cli/test_names.py -k hours"),
    Fault("sweep", "sweep/slurm.py", "_refusal(given) == words:\n        return []", "False:\n        return []", f"{COMMANDS} -k about_no_key"),
    Fault("sweep", "sweep/named.py", 'if are_moved else Place(path, "")', 'if False else Place(path, "")', "tests/cli/test_names.py -k any_folder"),
    Fault("sweep", "sweep/hours.py", "alone * statistics.median(factors)", "alone", "tests/sweep/test_hours.py"),
    Fault("sweep", "commands/before_start.py", "if not (sys.stdin.isatty() and sys.stderr.isatty()):", "if False:", "tests/cli/test_confirm.py"),
    Fault("sweep", "commands/sweep.py", 'record.get("sets", ())', "()", "tests/cli/test_ablate_shown.py"),
    Fault("identity", "runs/code.py", 'if not name.startswith("GIT_")', "", "tests/runs/test_code.py"),
    Fault("identity", "runs/code.py", "return self.sources != known.sources", "return self.version != known.version", "tests/runs/test_code.py"),
    Fault("identity", "sweep/again.py", 'add_request(RunFolder(place), "retry", [s.id for s in known])', "pass", "tests/sweep/test_other_code.py"),
    # What a user sees during a run
    Fault("life", "progress.py", "while not self._closing.wait(", "while False and not self._closing.wait(", LIFE),
    Fault("life", "progress.py", " and _takes_a_line(self.console)", "", LIFE),
    Fault("life", "progress.py", "if not (self.quiet or self.is_live) and", "if", LIFE),
    Fault("life", "progress.py", "self._last_line = time.monotonic()\n        dated", "dated", LIFE),
    Fault("life", "pace.py", "None if skip_first else (0, now)", "(0, now)", LIFE),
    Fault("life", "pace.py", "complete &= not steps or step_s is not None", "pass", LIFE),
    Fault("life", "pace.py", "self.measured.get(name, self.guessed.get(name))", "self.guessed.get(name, self.measured.get(name))", LIFE),
    Fault("life", "pace.py", "count - (loop.done if loop else 0)", "count", LIFE),
    Fault("life", "train/remaining.py", "c.initial_steps + c.steps", "c.steps", REMAINING),
    Fault("life", "train/remaining.py", "v.warmup_steps * warms_up", "v.warmup_steps", REMAINING),
    Fault("life", "train/trainer.py", "        self.reporter.pace.measured |= measured(", "        measured(", REMAINING),
    Fault("life", "train/trainer.py", "        guess_episodes(self.config, self.reporter.pace, games)\n", "", REMAINING),
    # Speed: fast forms against their plain twins
    Fault("speed", "rem/retnet.py", "(*before, *range(1, T + 1))", "(*before, *range(T - 1), T)", POP),
    Fault("speed", "rem/retnet.py", "turns = layout.real_turns[:, :, -1:]", "turns = layout.real_turns[:, :, :1]", POP),
    Fault("speed", "rem/retnet.py", 'self.block_states(real["k"], _kept(real["v"], keep), state, layout.pruned_writing)', 'self.block_states(real["k"], real["v"], state, layout.pruned_writing)', POP),
    Fault("speed", "rem/retention.py", "torch.view_as_complex(rotation))", "torch.view_as_complex(rotation).conj())", POP),
    Fault("speed", "dropout.py", "manual_seed(seed)", "manual_seed(0)", DROPOUT),
    Fault("speed", "dropout.py", "min(round(p * LEVELS), LEVELS - 1)", "round(p * LEVELS) // 2", DROPOUT),
    Fault("speed", "dropout.py", "LEVELS / (LEVELS - dropped)", "1.0", DROPOUT),
    Fault("speed", "dropout.py", "_masked(gradients[0], mask, ctx.scale)", "gradients[0]", DROPOUT),
    Fault("speed", "rem/world_model.py", "torch.arange(N + A, N + A + K", "torch.arange(N, N + K", M),
    Fault("speed", "rem/world_model.py", "actions.unsqueeze(2) + N]", "actions.unsqueeze(2)]", M),
    Fault("speed", "rem/views.py", "place.copy_(gradient)", "place.copy_(2 * gradient)", "tests/rem/test_views.py"),
    Fault("speed", "rem/world_model.py", "0.0).sum() / num_unmasked.clamp(min=1)", "0.0).sum() / mask.sum().clamp(min=1)", M),
    Fault("speed", "train/learner.py", "agent.tokenizer.code_vectors, whole)\n        loss.backward()", "agent.tokenizer.code_vectors)\n        loss.backward()", PHASES),
    # Benchmarks: what is timed, counted, compared and said
    Fault("bench", "bench/timing.py", "[:: -1 if turn % 2 else 1]", "", f"{BENCH}/test_timing.py"),
    Fault("bench", "bench/timing.py", "        work()\n    synchronize(device)\n", "        work()\n", f"{BENCH}/test_timing.py"),
    Fault("bench", "bench/timing.py", ") / repeats", ")", f"{BENCH}/test_timing.py"),
    Fault("bench", "bench/spread.py", "1 - 2 * below", "1 - below", f"{BENCH}/test_spread.py"),
    Fault("bench", "bench/spread.py", "if interval.coverage < CONFIDENCE:", "if False:", f"{BENCH}/test_spread.py"),
    Fault("bench", "bench/spread.py", "a / b for a, b", "b / a for a, b", f"{BENCH}/test_spread.py"),
    Fault("bench", "bench/cost.py", "10 * R * E * E", "8 * R * E * E", f"{BENCH}/test_cost.py"),
    Fault("bench", "bench/cost.py", "range(self.n)", "range(self.K)", f"{BENCH}/test_cost.py"),
    Fault("bench", "bench/cost.py", "BACKWARD * forward -", "forward -", f"{BENCH}/test_cost.py"),
    Fault("bench", "bench/counting.py", '"flops", _flops(', '"flops", 0 * _flops(', f"{BENCH}/test_timing.py"),
    Fault("bench", "bench/counting.py", "if func.is_view or", "if", f"{BENCH}/test_timing.py"),
    Fault("bench", "bench/checks.py", "if not check.error <= check.tolerance:", "if check.error < -1:", f"{BENCH}/test_checks.py"),
    Fault("bench", "train/remaining.py", "(0 if changed else _collected(config, before))", "0", f"{BENCH}/test_whole_run.py"),
    Fault("bench", "bench/measure.py", "median / steps if steps", "median if steps", f"{BENCH}/test_run.py"),
    Fault("bench", "bench/measure.py", "median * per_epoch", "median", f"{BENCH}/test_run.py"),
    Fault("bench", "bench/packing.py", "1 / sum(1 / seconds for", "1 / max(1 / seconds for", f"{BENCH}/test_packing.py"),
    Fault("bench", "bench/packing.py", "max(1, num_cores // num_processes)", "num_cores", f"{BENCH}/test_packing.py"),
    Fault("bench", "bench/packing_pool.py", "        for worker in self.workers:\n            worker.end()\n", "", f"{BENCH}/test_packing.py"),
    Fault("bench", "bench/packing_worker.py", "        _until_told(steps, device, connection)\n", "", f"{BENCH}/test_packing.py"),
    Fault("bench", "bench/tables_packing.py", "for n in (1, made.num_processes)", "for n in (1, 1)", f"{BENCH}/test_tables.py"),
    Fault("bench", "bench/precision.py", "refresh_tokens(fp32.encode)", "refresh_tokens(learner.agent.encode)", f"{BENCH}/test_precision.py"),
    Fault("bench", "bench/precision.py", "        bf16.tokenizer.load_state_dict(fp32.tokenizer.state_dict())\n", "", f"{BENCH}/test_precision.py"),
    Fault("bench", "bench/precision.py", "own = config.at_precision(precision)", "own = config", f"{BENCH}/test_precision.py"),
    Fault("bench", "bench/result.py", "max(map(abs, self.differences))", "max(self.differences)", f"{BENCH}/test_precision.py"),
    Fault("bench", "bench/compare.py", "b_spread.low / a_spread.high", "b_spread.low / a_spread.low", f"{BENCH}/test_compare.py"),
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
    if red := first_red({f.tests for f in chosen}):
        print(f"without any fault {red}: mend it first, for it would notice everything")
        return 1
    noticed = [try_fault(i, fault, len(chosen)) for i, fault in enumerate(chosen, 1)]
    print(f"{noticed.count(True)} of {len(chosen)} faults noticed")
    return 0 if all(noticed) else 1


class Outcome(NamedTuple):
    """Of tests in a copy: `passed`, `failed`, `not collected` or `not over`; and the place that says so."""

    kind: str
    place: str = ""


def first_red(tests: set[str]) -> str:
    """Run all tests without a fault; what is wrong with the first that do not pass, or nothing."""
    with copied_tree() as copy:
        for some in sorted(tests):
            outcome = run_tests(copy, some)
            print(f"without a fault: {outcome.kind} {outcome.place} ({some})", flush=True)
            if outcome.kind != "passed":
                return f"{some}: {outcome.kind} {outcome.place}"
    return ""


def try_fault(number: int, fault: Fault, total: int) -> bool:
    """Plant it in a fresh copy, run its tests; whether one failed."""
    with copied_tree() as copy:
        path = copy / "remctl" / fault.file
        text = path.read_text()
        if text.count(fault.old) != 1:
            print(f"{number}/{total} DOES NOT APPLY ({text.count(fault.old)} places)  {fault.name}", flush=True)
            return False
        path.write_text(text.replace(fault.old, fault.new))
        begin = time.perf_counter()
        outcome = run_tests(copy, fault.tests)
        noticed = outcome.kind == "failed"
        label = f"noticed by {outcome.place}" if noticed else f"UNNOTICED: {outcome.kind} {outcome.place}"
        print(f"{number}/{total} {label} ({time.perf_counter() - begin:.0f} s)  {fault.name}", flush=True)
        return noticed


@contextmanager
def copied_tree() -> Iterator[Path]:
    """What tests need of the repository, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        copy = Path(folder)
        for name in ("remctl", "tests", "ablations", "reports", "slurm", "docs", "pyproject.toml", "constraints.txt"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        yield copy


def run_tests(copy: Path, tests: str) -> Outcome:
    """Run them in the copy until one fails."""
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--timeout=0"]  # LIMIT_S is for all of them
    command = [sys.executable, "-m", "pytest", *options, *tests.split()]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Outcome("not over", f"after {LIMIT_S} s")
    if done.returncode == 0:
        return Outcome("passed")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    place = found.group(1) if found else f"pytest's exit status {done.returncode}"
    collected = done.returncode == 1 and "ERROR collecting" not in done.stdout
    return Outcome("failed" if collected else "not collected", place)


if __name__ == "__main__":
    sys.exit(main())
