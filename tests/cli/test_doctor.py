"""The checks of `remctl doctor`, each on a machine that has what it looks for and on one that has not."""

from __future__ import annotations

import errno
import fcntl
import json
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from remctl import doctor
from remctl.doctor import Check

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A torch whose devices a test chooses, (name, bytes) each, and `native`, the precision that each computes well."""
    import remctl.precision

    fake = SimpleNamespace(__version__="2.13.0", devices=[], native={("cpu",): "bf16"}, device=lambda *names: names)
    monkeypatch.setattr(remctl.precision, "native_precision", lambda device: fake.native[device])
    fake.cuda = SimpleNamespace(
        is_available=lambda: bool(fake.devices),
        device_count=lambda: len(fake.devices),
        get_device_properties=lambda i: SimpleNamespace(name=fake.devices[i][0], total_memory=fake.devices[i][1]),
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_here_it_runs(cli: Callable, tmp_path: Path, monkeypatch: Any, fake_torch: SimpleNamespace) -> None:
    monkeypatch.setenv("REMCTL_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = cli("doctor", "--json")
    checks = [Check(**row) for row in json.loads(done.out)]
    names = [check.name for check in checks]
    assert {"Python", "torch", "CPU", "ROMs", "LPIPS weights", "free disk", "out folder", "SLURM"} <= set(names)
    assert all((check.state == "ok") == (check.fix == "") for check in checks)
    assert done.status == int(doctor.failed(checks))
    text = cli("doctor")
    assert text.status == done.status
    assert max(len(line) for line in text.out.splitlines()) <= 80
    assert "fix: run `remctl weights fetch`" in text.out
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_status_1_a_warning_is_not(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_all", lambda out: [Check("x", "warn", "[red]y", "do z")])
    done = cli("doctor")
    assert done.status == 0
    assert done.out == "warn  x  [red]y\n         fix: do z\n1 checks: 0 failed, 1 warnings\n"
    monkeypatch.setattr(doctor, "check_all", lambda out: [Check("x", "fail", "y", "do z")])
    assert cli("doctor").status == 1
    assert cli("doctor", "--json").status == 1


def test_a_check_that_breaks_is_a_finding_of_its_own(monkeypatch: pytest.MonkeyPatch, fake_torch: Any) -> None:
    monkeypatch.delattr(fake_torch, "cuda")
    found = by_name(doctor.check_all())
    assert found["torch"].state == "fail"
    assert "AttributeError" in found["torch"].found
    assert found["Python"].state == "ok"


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = by_name(doctor.check_all())["torch"]
    assert found.state == "fail"
    assert "ModuleNotFoundError" in found.found


def test_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_python().state == "ok"
    monkeypatch.setattr(doctor, "MIN_PYTHON", (99, 0))
    assert doctor.check_python().state == "fail"


def test_devices(fake_torch: SimpleNamespace) -> None:
    torch, cuda, cpu = doctor.check_torch()
    assert (torch.state, cuda.state, cpu.state) == ("ok", "warn", "ok")
    assert cpu.found.endswith("computes in bf16")
    fake_torch.native = {("cpu",): "fp32", ("cuda", 0): "bf16", ("cuda", 1): "fp32"}
    fake_torch.devices = [("A100", 80 << 30), ("V100", 16 << 30)]
    _, new, old, cpu = doctor.check_torch()
    assert new == Check("cuda:0", "ok", "A100, 80 GiB, computes in bf16")
    assert old == Check("cuda:1", "ok", "V100, 16 GiB, computes in fp32")
    assert (cpu.state, cpu.found.split(", ")[-1]) == ("ok", "computes in fp32")


@pytest.mark.parametrize(
    ("line", "pins", "state"),
    [
        ("numpy>=2", {}, "ok"),
        ("numpy>=99", {}, "fail"),
        ("numpy==1.0", {}, "fail"),
        ("no-such-library-at-all>=1", {}, "fail"),
        ("numpy>=2", {"numpy": "2.0.0"}, "warn"),
    ],
)
def test_libraries(line: str, pins: dict[str, str], state: str) -> None:
    check = doctor.check_library(Requirement(line), pins)
    assert check.state == state
    assert bool(check.fix) == (state != "ok")


def test_local_version_labels_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.13.0+cpu")
    assert doctor.check_library(Requirement("torch>=2.8"), {"torch": "2.13.0"}).state == "ok"
    assert doctor.check_library(Requirement("torch==2.13.0"), {"torch": "2.13.0+cu130"}).state == "ok"
    assert doctor.check_library(Requirement("torch>=2.8"), {"torch": "2.12.0"}).state == "warn"


def test_pins_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(
        "# pins\nPyYAML==6.0.3\nale_py==0.12.1  # ROMs\npandas<3\nmarkdown-it-py==4.3.0; python_version>'3'\n"
    )
    assert doctor.pinned_versions(file) == {"pyyaml": "6.0.3", "ale-py": "0.12.1", "markdown-it-py": "4.3.0"}
    assert doctor.pinned_versions(tmp_path / "none") == {}


def test_requirements_of_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", missing)
    required = {r.name for r in doctor.requirements() if not r.marker}
    assert {"torch", "typer", "ale-py", "yet-another-retnet"} <= required
    assert "pytest" not in required
    assert {"extra tb", "extra wandb"} <= {check.name for check in doctor.check_extras()}


def test_roms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor.check_roms().state == "ok"
    monkeypatch.setattr("ale_py.roms.get_rom_path", lambda rom: None if rom == "pong" else __file__)
    check = doctor.check_roms()
    assert (check.state, check.found) == ("fail", "missing: Pong")


@pytest.mark.parametrize(("state", "expected"), [("ready", "ok"), ("missing", "warn"), ("damaged", "warn")])
def test_weights(monkeypatch: pytest.MonkeyPatch, state: str, expected: str) -> None:
    monkeypatch.setattr(
        "remctl.weights.lpips_status", lambda: SimpleNamespace(state=state, line=f"LPIPS weights: {state}", fix="x")
    )
    check = doctor.check_weights()
    assert (check.state, check.found) == (expected, state)


@pytest.mark.parametrize(("free", "state"), [(2.1e9, "ok"), (1.9e9, "warn"), (1e6, "fail")])
def test_free_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, state: str) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: asked.append(path) or Usage(9e12, 0, free))
    assert doctor.check_disk(tmp_path / "not" / "yet").state == state
    assert asked == [tmp_path]


def test_out_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_writable(tmp_path / "a" / "b").state == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    taken = doctor.check_writable(tmp_path / "file")
    assert taken.state == "fail"
    assert taken.found.endswith("file is no folder: choose another folder")
    assert doctor.check_writable(tmp_path / "file" / "a").state == "fail"

    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refused)
    assert doctor.check_writable(tmp_path).found.endswith("Permission denied")


@pytest.mark.parametrize(
    ("present", "state"), [((), "ok"), (("sbatch", "squeue", "sacct"), "ok"), (("sbatch", "squeue"), "warn")]
)
def test_slurm(monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], state: str) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: f"/usr/bin/{tool}" if tool in present else None)
    check = doctor.check_slurm()
    assert check.state == state
    assert state == "ok" or "sacct" in check.fix


@pytest.mark.parametrize("code", [None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_lock_is_tried_where_the_runs_go(code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, kind: int) -> None:
        raise OSError(code, "x")

    if code is not None:
        monkeypatch.setattr(fcntl, "flock", flock)
    check = by_name(doctor.check_all(tmp_path / "runs"))["file locks"]
    assert check.state == ("ok" if code is None else "fail")
    assert str(tmp_path) in check.found
    assert ("flock" in check.fix) == (code is not None)
    assert not list(tmp_path.iterdir())
