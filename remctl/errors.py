"""The errors a user can mend: one clear line with the remedy, and the exit status that goes with it.

Everything else is a defect of ours and may show a traceback.
"""

MAX_LENGTH = 200


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
