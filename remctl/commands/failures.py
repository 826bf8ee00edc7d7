"""What goes wrong, as one line on stderr and an exit status; never a traceback unless --debug.

0 done; 1 the machine refused; 2 bad input; 70 a defect of ours; 128 + n left on signal n. Whoever reads our output may leave
before its end (`| head`): then the command ends without a word and with SIGPIPE's status, as other programs do.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from typer import Abort, TyperException
from typer.core import TyperGroup

from remctl.errors import Interrupted, UserError, machine_error

MACHINE, INTERNAL, NO_READER, CTRL_C = 1, 70, 128 + signal.SIGPIPE, 128 + signal.SIGINT
AGAIN = {
    "remctl train": "; run the same command again; training resumes from its last complete epoch",
    "remctl ablate": "; runs already started continue: see `remctl status`",
}


def guarded(command: Callable[[], object], args: Sequence[str] = (), debug: bool = False, verb: str = "remctl") -> int:
    """Run `command`; its exit status, whatever happens. `args` are what the user typed, `verb` whose help helps."""
    try:
        status = command()
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except BaseException as error:
        if debug and not isinstance(error, SystemExit) and not _is_without_reader(error):
            traceback.print_exception(error)
        status = report(error, args, verb)
    else:
        if status == CTRL_C:  # typer turns KeyboardInterrupt into this status
            say(f"interrupted{AGAIN.get(verb, '')}")
    _drop_what_nobody_reads()
    return status if isinstance(status, int) else 0


def report(error: BaseException, args: Sequence[str] = (), verb: str = "remctl") -> int:
    """Say what went wrong; the exit status."""
    if _is_without_reader(error):
        return NO_READER
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else MACHINE
    status, message = describe(error, args, verb)
    say(message)
    return status


def describe(error: BaseException, args: Sequence[str] = (), verb: str = "remctl") -> tuple[int, str]:
    """Exit status and message of an error."""
    if isinstance(error, Abort) or _comes_of_ctrl_c(error):
        return CTRL_C, f"interrupted{AGAIN.get(verb, '')}"
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    if isinstance(error, TyperException):
        return error.exit_code, usage_message(error, args, verb)
    if isinstance(error, Interrupted):
        return 128 + error.signum, f"stopped by {signal.Signals(error.signum).name}{AGAIN.get(verb, '')}"
    if isinstance(error, OSError):
        return MACHINE, os_message(error)
    if _out_of_memory(error):
        return MACHINE, f"out of memory ({error}): lower the batch sizes (--set controller.training.batch_size=...)"
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # pathlib's
        return MACHINE, "this user has no home folder: set HOME to a folder that is writable"
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return INTERNAL, f"internal error: {text}; run again with --debug and report what it shows"


def usage_message(error: TyperException, args: Sequence[str], verb: str) -> str:
    """Typer's message, what was given, and where help is."""
    message = error.format_message().rstrip(".").replace(". Did you mean", ": did you mean")
    message = message.partition(", unable to parse")[0].replace(": Input should be", ": allowed is")
    given = _given(getattr(getattr(error, "param", None), "opts", ()), args)
    return f"{message[:1].lower()}{message[1:]}{given}{_verbs(error, message)}; see `{verb} --help`"


def os_message(error: OSError) -> str:
    """The cause by name, the file, the remedy."""
    if error.filename is None:
        return f"{error.strerror or str(error) or type(error).__name__}: check the disk and the folder"
    return str(machine_error(error, "using", Path(str(error.filename))))


def say(message: str) -> None:
    """One line on stderr, whatever the text holds; control characters shown, not obeyed."""
    line = " ".join(message.split())
    if sys.stderr is None:  # closed by whoever started us; print would take stdout
        return
    with suppress(OSError):  # nobody reads it: the status says enough
        print("remctl: " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)


def _given(options: Sequence[str], args: Sequence[str]) -> str:
    """`, given 'x'` where one of `options` stands among `args` with a value."""
    for option, value in zip(args, [*args[1:], None], strict=True):
        if option in options and value is not None:
            return f", given {value!r}"
        if option.partition("=")[0] in options and "=" in option:
            return f", given {option.partition('=')[2]!r}"
    return ""


def _verbs(error: TyperException, message: str) -> str:
    """All verbs, where one is missing or unknown and none is near."""
    group = getattr(getattr(error, "ctx", None), "command", None)
    if not isinstance(group, TyperGroup) or "ommand" not in message or "did you mean" in message:
        return ""
    return f"; choose one of {', '.join(group.commands)}"


def _comes_of_ctrl_c(error: BaseException | None) -> bool:
    """Whether it is KeyboardInterrupt, or what a library made of it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return any(isinstance(one, KeyboardInterrupt) for one in seen)


def _out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # an error of torch's can only come once it is imported
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return on_cpu or isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def _is_without_reader(error: BaseException) -> bool:
    """Whether it is about our output, of which typer and rich make a SystemExit, and not about a pipe to a process of ours."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and bool(_without_reader())


def _without_reader() -> list[int]:
    poll = select.poll()
    for fd in (1, 2):
        poll.register(fd, 0)
    return [fd for fd, event in poll.poll(0) if event & select.POLLERR]


def _drop_what_nobody_reads() -> None:
    """What is still buffered must not fail once more at exit."""
    for fd in _without_reader():
        os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
