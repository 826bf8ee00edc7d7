"""Programs of SLURM's names that a test puts first on the PATH: a queue that is a file, and whatever a site does to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

PROGRAM = r"""#!{python} -S
import json, os, re, sys, time
from pathlib import Path
here, name, args = Path({here!r}), Path(sys.argv[0]).name, sys.argv[1:]
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps({{"name": name, "args": args, "env": dict(os.environ)}}) + "\n")
queue, text = here / "queue", ""
filters = [v for v in os.environ if re.match(f"{{name.upper()}}_", v)]
if name == "squeue":
    marked = args[args.index("-o") + 1]
    names = args[args.index("-n") + 1].split(",")
    rows = [line.split("|") for line in queue.read_text().splitlines()] if queue.exists() and not filters else []
    text = "remctl|NAME|ARRAY_JOB_ID|ARRAY_TASK_ID|STATE|REASON\n"
    text += "".join(f"remctl|{{'|'.join(row)}}\n" for row in rows if row[0] in names)
    assert marked == "remctl|%j|%F|%K|%T|%r"
elif name == "sbatch" and "--test-only" not in args:
    script = Path(args[-1]).read_text()
    job = str(700 + len(list(here.glob("job_*"))))
    (here / f"job_{{job}}").write_text(script)
    title = re.search(r"--job-name=(\S+)", script)[1]
    last = re.search(r"--array=0-(\d+)", script)
    indices = range(int(last[1]) + 1) if last else ["N/A"]
    with queue.open("a") as file:
        file.writelines(f"{{title}}|{{job}}|{{i}}|PENDING|Priority\n" for i in indices)
    text = job + "\n"
elif name == "scontrol":
    text = "ClusterName = here\nMaxArraySize            = 1001\nPrivateData             = none\n"
    text = text if "config" in args else "UP\n"
elif name == "sinfo":
    assert args[-1] == "remctl|%P|%l"
    text = "remctl|main*|1-00:00:00\n"
elif name == "srun":
    text = os.popen(args[-1]).read()
site = here / f"{{name}}.site"
if site.exists():
    exec(site.read_text())
sys.stdout.write(text)
"""
NAMES = ("sbatch", "squeue", "sacct", "sinfo", "scontrol", "srun", "scancel")


class FakeSlurm:
    """What was called, what is queued, and how a site's own program in the place of one behaves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in NAMES:
            (self.bin / name).write_text(PROGRAM.format(python=sys.executable, here=str(folder)))
            (self.bin / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")

    def site(self, name: str, code: str) -> None:
        """Python that runs before `name` prints its `text`; it may change that, wait, or leave."""
        (self.folder / f"{name}.site").write_text(code)

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    @property
    def calls(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    def jobs(self) -> list[str]:
        """The scripts that were submitted."""
        return [path.read_text() for path in sorted(self.folder.glob("job_*"))]

    def set_state(self, state: str) -> None:
        """Of every job in the queue."""
        rows = [line.split("|") for line in (self.folder / "queue").read_text().splitlines()]
        (self.folder / "queue").write_text("".join(f"{'|'.join([*row[:3], state, row[4]])}\n" for row in rows))

    def forget(self) -> None:
        (self.folder / "queue").unlink()
