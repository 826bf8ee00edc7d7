"""The errors a user can mend: one clear line with the remedy, and the exit status that goes with it.

Everything else is a defect of ours and may show a traceback.
"""

import errno
import os
from pathlib import Path

MAX_LENGTH = 200
_AGAIN = "run the same command again; the last checkpoint is intact"
_OTHER_FOLDER = "make it writable or choose another folder"
CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("disk full", f"free space and {_AGAIN}"),
    errno.EDQUOT: ("disk quota used up", f"free space and {_AGAIN}"),
    errno.EFBIG: ("file size limit reached", f"raise the limit (ulimit -f) and {_AGAIN}"),
    errno.EIO: ("input/output error of the disk", f"check the disk and {_AGAIN}"),
    errno.ESTALE: ("network file system lost the file", f"check the mount and {_AGAIN}"),
    errno.EACCES: ("permission denied", _OTHER_FOLDER),
    errno.EPERM: ("operation not permitted", _OTHER_FOLDER),
    errno.EROFS: ("read-only file system", _OTHER_FOLDER),
    errno.ENOENT: ("no such file or folder", "check that the folder is still there"),
    errno.ENOTDIR: ("a file is in the place of a folder", "choose another folder"),
    errno.EISDIR: ("a folder is in the place of a file", "move it away"),
    errno.ENAMETOOLONG: ("name too long", "choose a shorter one"),
}


def one_line(error: BaseException) -> str:
    """The kind of an error that is none of ours, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])[:MAX_LENGTH]


class UserError(Exception):
    """Bad input. The message is one line that names the fix; the command line exits with status 2."""

    exit_code = 2


class MachineError(UserError):
    """The machine refused (disk full, folder not writable, run locked); exits with status 1."""

    exit_code = 1


class InUseError(MachineError):
    """Another process works on the run; exits with status 75 (try again later), so that nobody counts it as a failure."""

    exit_code = 75


class Interrupted(Exception):  # noqa: N818 - not an error: the run resumes
    """A signal asked the process to leave; nothing of the running epoch counts. `signum` is the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


def machine_error(error: OSError, action: str, path: Path) -> MachineError:
    """The error in one line: cause by name, what was being done (`writing`), the path, the remedy."""
    fallback = (os.strerror(error.errno) if error.errno else str(error), "check the disk and the folder")
    cause, remedy = CAUSES.get(error.errno or 0, fallback)
    return MachineError(f"{cause} while {action} {path}: {remedy}")
