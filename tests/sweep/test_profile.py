"""Profiles: what becomes of each key, and what is refused without asking SLURM."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from remctl.errors import UserError
from remctl.shipped import find
from remctl.sweep.profile import Profile, minutes, read_profile


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((90, 90), ("12:00:00", 720), ("00:00:30", 1), ("2-12:00:00", 3600), ("1-00:00:01", 1441)),
        *(("90", 90), ("2-12", 3600), ("2-12:30", 3630), ("90:30", 91), ("100:00:00", 6000), (" 1-0 ", 1440)),
    ],
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


def read(folder: Path, text: str) -> Profile:
    (folder / "p.yaml").write_text(text)
    return read_profile(folder / "p.yaml")


def flags(folder: Path, text: str) -> set[str]:
    return {flag for given in read(folder, text).flags().values() for flag in given} - {
        "--time=1440",
        "--cpus-per-task=4",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"--mem=16384M", "--gres=gpu:1"}),
        ("memory_gb: null", {"--gres=gpu:1"}),
        ("memory_gb: null\nextra: {mem-per-gpu: 20G}", {"--gres=gpu:1", "--mem-per-gpu=20G"}),
        ("extra: {mem_per_cpu: 4G}", {"--gres=gpu:1", "--mem-per-cpu=4G"}),
        ("extra: {gpus-per-node: a100:1}", {"--mem=16384M", "--gpus-per-node=a100:1"}),
        ("extra: {--gpus: 1}", {"--mem=16384M", "--gpus=1"}),
        ("extra: {gres: 'gpu:1,tmp:100G'}", {"--mem=16384M", "--gres=gpu:1,tmp:100G"}),
        ("extra: {exclusive: false, nice: 3, gpus: false}", {"--mem=16384M", "--gres=gpu:1", "--nice=3"}),
        ("extra: {exclusive: true, mem_per_cpu: false}", {"--mem=16384M", "--gres=gpu:1", "--exclusive"}),
        ("gpus: 0\nextra: {gres: tmp:100G}", {"--mem=16384M", "--gres=tmp:100G"}),
    ],
)
def test_what_sites_ask_for_instead(text: str, expected: set[str], tmp_path: Path) -> None:
    assert flags(tmp_path, text) == expected
    assert read(tmp_path, text).device_of_runs == ("cpu" if "gpus: 0" in text else "cuda")


def test_a_line_of_setup_that_fails_ends_the_job_and_is_named(tmp_path: Path) -> None:
    lines = ["echo begun; true", "false || echo mended  # a comment", "sh -c 'exit 3'", "echo never"]
    profile = Profile(setup=tuple(lines))
    done = subprocess.run(["bash", "-c", "\n".join(profile.setup_script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "begun\nmended\n")
    assert done.stderr == "remctl: setup failed with status 3: sh -c 'exit 3'\n"
    exported = Profile(setup=("export A_LINE=1", 'cd "$HOME"')).setup_script
    done = subprocess.run(["bash", "-c", "\n".join([*exported, "echo $A_LINE; pwd"])], capture_output=True, text=True)
    assert done.stdout.split() == ["1", str(Path.home())]


@pytest.mark.parametrize(
    ("gpus", "device", "of_runs"), [(1, None, "cuda"), (0, None, "cpu"), (1, "auto", "auto"), (0, "cpu", "cpu")]
)
def test_runs_with_a_gpu_insist_on_it(gpus: int, device: str | None, of_runs: str) -> None:
    assert Profile(gpus=gpus, device=device).device_of_runs == of_runs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partitio: x", "unknown key 'partitio': did you mean partition?"),
        ("zzz: 1", "unknown key 'zzz': known: partition, account, qos"),
        ("time: soon", "time: given 'soon'; allowed: minutes (90), HH:MM:SS"),
        ("time: 1.5", "time: given 1.5; allowed: minutes (90), HH:MM:SS"),
        ("time: UNLIMITED", "time: given 'UNLIMITED'; allowed: minutes (90), HH:MM:SS"),
        ("memory_gb: 16G", "memory_gb: given '16G'; allowed: a number from 0.1 to 100000, or null"),
        ("extra: {nice: [1]}", "extra.nice: given [1]; allowed: options of sbatch with text, a whole number or true"),
        ("setup: [3]", "setup.0: given 3; allowed: a list of shell commands"),
        ("memory_gb: 8\nextra: {mem-per-cpu: 4G}", "extra.mem-per-cpu: memory_gb asks for memory too (--mem=8192M)"),
        ("memory_gb: 8\nextra: {mem: 4G}", "extra.mem: memory_gb is a key of its own"),
        ("extra: {partition: x}", "extra.partition: partition is a key of its own"),
        ("gpus: 1\nextra: {gpus-per-node: 1}", "gpus: given with extra.gpus-per-node, which asks for the GPU instead"),
        ("gpu_type: a100\nextra: {gres: gpu:1}", "gpu_type: given with extra.gres"),
        ("extra: {gres: gpu:1, gpus-per-node: 1}", "extra.gpus-per-node: --gres asks for a GPU too"),
        ("extra: {gres: tmp:100G}", "extra.gres: --gres=gpu:1 asks for a GPU too: write all in one"),
        ("extra: {gpus-per-node: a100:4}", "extra.gpus-per-node: given 'a100:4'; a run uses one GPU"),
        ("extra: {gpus-per-node: a100:1, gres: gpu:1}", "extra.gres: --gpus-per-node asks for a GPU too"),
        ("extra: {gpus-per-node: a100:1, gres: 'tmp:1G,gpu:1'}", "extra.gres: --gpus-per-node asks for a GPU too"),
        ("extra: {gpus: 1, gres: 'gpu:1'}", "extra.gres: --gpus asks for a GPU too"),
        ("extra: {gres: 'gpu:1', gpus: 1}", "extra.gpus: --gres asks for a GPU too"),
        ("extra: {gpus: 1, gpus-per-task: 1}", "extra.gpus-per-task: --gpus asks for a GPU too"),
        ("memory_gb: null\nextra: {mem: 4G, mem-per-cpu: 2G}", "memory_gb is a key of its own"),
        ("extra: {mem: 4G, mem-per-cpu: 2G}", "extra.mem-per-cpu: --mem asks for memory too"),
        ("extra: {mem-per-cpu: 2G, mem: 4G}", "extra.mem: --mem-per-cpu asks for memory too"),
        ("extra: {mem-per-gpu: 2G, mem_per_cpu: 4G}", "extra.mem-per-cpu: --mem-per-gpu asks for memory too"),
        ("extra: {mem-per-cpu: 2G, mem_per_cpu: 4G}", "extra: one option is written in two forms"),
        ("extra: {cpus-per-gpu: 8}", "extra.cpus-per-gpu: cpus is a key of its own"),
        ("extra: {G: 1}", "extra.G: a single letter is not accepted: write gpus"),
        ("extra: {-p: main}", "extra.p: a single letter is not accepted: write partition"),
        ("extra: {Z: 1}", "extra.Z: a single letter is not accepted: write its long form"),
        (
            "extra: {gpus-per-n: 1}",
            "extra.gpus-per-n: sbatch may take it for gpus-per-node: write the option's whole name",
        ),
        ("extra: {part: x}", "extra.part: sbatch may take it for partition"),
        ("extra: {nodes: 2}", "extra.nodes: one task on one node is one run"),
        ("extra: {ntasks: 4}", "extra.ntasks: one task on one node is one run"),
        ("extra: {ntasks_per_node: 4}", "extra.ntasks-per-node: one task on one node is one run"),
        ("partition: a b", "partition: given 'a b'; allowed: text without blanks"),
        ("account: 'rl '", "account: given 'rl '; allowed: text without blanks"),
        ("gpus: 0\ndevice: cuda", "device: given cuda with gpus: 0"),
        ("cpus: 0", "cpus: given 0"),
        ("cpus: many", "cpus: given 'many'"),
        ("memory_gb: 1e9", "memory_gb: given 1000000000.0; allowed: a number from 0.1 to 100000, or null"),
        ("time: 600000", "D-HH:MM); at most 365 days"),
        *(
            (f"gpu_type: '{given}'", f"gpu_type: given '{given}'; allowed: the TYPE of gpu:TYPE:1 alone")
            for given in ("a100:1", "gpu:a100", "a100,h100", "a b", "--x")
        ),
        ("partition: --partition=gpu", "partition: given '--partition=gpu'"),
        ("extra: {Mem-Per-Cpu: 4G}", "sbatch's long options are in lower case: write mem-per-cpu"),
        ("extra: {EXCLUSIVE: true}", "sbatch's long options are in lower case: write exclusive"),
        ("extra: {'nice=3': true}", "extra.nice=3: not the name of an option"),
        ("extra: {'a b': true}", "extra.a b: not the name of an option"),
        *(
            (f"extra: {{{name}: true}}", "with it sbatch submits nothing")
            for name in ("help", "--usage", "version", "hel")
        ),
        *((f"extra: {{{name}: true}}", "needs a value") for name in ("mem-per-gpu", "reservation", "gpus")),
        ("memory_gb: 0.0005", "memory_gb: given 0.0005"),
        ("gpus: 2", "gpus: given 2"),
        ("gpus: 0\ngpu_type: a100", "gpu_type: given 'a100' with gpus: 0"),
        ("time: 1\nsignal_delay_s: 90", "signal_delay_s: the warning would come before the start"),
        ("partition: ''", "partition: given ''"),
        ("setup: module load cuda", "setup: given 'module load cuda'"),
        ("extra: {array: 0-5}", "array is set by remctl itself"),
        ("extra: {--job-name: x}", "job-name is set by remctl itself"),
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
