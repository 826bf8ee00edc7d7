"""Profiles: what becomes of each key, and what is refused without asking SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl.errors import UserError
from remctl.shipped import find
from remctl.sweep.profile import Profile, minutes, read_profile


@pytest.mark.parametrize(
    ("text", "value"), [(90, 90), ("12:00:00", 720), ("00:00:30", 1), ("2-12:00:00", 3600), ("1-00:00:01", 1441)]
)
def test_times_are_minutes_rounded_up(text: object, value: int) -> None:
    assert minutes(text) == value


def test_every_key_becomes_a_flag(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "partition: gpu\naccount: rl\nqos: high\ngpu_type: a100\ncpus: 8\nmemory_gb: 1.5\ntime: '24:00:00'\n"
        "constraint: ib\nexclude: node[3,7]\nextra: {nice: 100, exclusive: true}\nsetup: [module load cuda]\n"
    )
    profile = read_profile(path)
    assert [flag for flags in profile.flags().values() for flag in flags] == [
        "--partition=gpu",
        "--account=rl",
        "--qos=high",
        "--time=1440",
        "--cpus-per-task=8",
        "--mem=1536M",
        "--constraint=ib",
        "--exclude=node[3,7]",
        "--gres=gpu:a100:1",
        "--nice=100",
        "--exclusive",
    ]
    assert profile.setup == ("module load cuda",)


@pytest.mark.parametrize(
    ("gpus", "device", "of_runs"), [(1, None, "cuda"), (0, None, "cpu"), (1, "auto", "auto"), (0, "cpu", "cpu")]
)
def test_runs_with_a_gpu_insist_on_it(gpus: int, device: str | None, of_runs: str) -> None:
    assert Profile(gpus=gpus, device=device).device_of_runs == of_runs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partitio: x", "unknown key 'partitio': did you mean partition?"),
        ("time: soon", "time: given 'soon'; write minutes"),
        ("cpus: 0", "cpus: given 0"),
        ("cpus: many", "cpus: given 'many'"),
        ("memory_gb: 0.0005", "memory_gb: given 0.0005"),
        ("gpus: 2", "gpus: given 2"),
        ("gpus: 0\ngpu_type: a100", "gpu_type: given 'a100' with gpus: 0"),
        ("time: 1\nsignal_delay_s: 90", "signal_delay_s: the warning would come before the start"),
        ("partition: ''", "partition: given ''"),
        ("setup: module load cuda", "setup: given 'module load cuda'"),
        ("extra: {array: 0-5}", "array is set by remctl itself"),
        ("extra: {--job-name: x}", "--job-name is set by remctl itself"),
        ("extra: {arr: 0-5}", "arr is set by remctl itself"),  # sbatch takes it for --array
        ("extra: {clusters: b}", "clusters is set by remctl itself"),
        ("extra: {wait: true}", "wait is set by remctl itself"),
        ("- a", "holds ['a'], not a mapping"),
        ("partition: a\npartition: b", "is given twice"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_key(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="p.yaml") as caught:
        read_profile(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shipped_profiles_are_found_by_name() -> None:
    assert read_profile(find("slurm", "default")).gpus == 1
    assert read_profile(find("slurm", "cpu")).gpus == 0
    with pytest.raises(UserError, match="no SLURM profile 'gpuu': known: cpu, default"):
        find("slurm", "gpuu")


def test_the_default_profile_asks_for_what_a_profile_without_keys_does() -> None:
    assert read_profile(find("slurm", "default")) == Profile()
