"""`remctl` and `python -m remctl`: what must be so before anything else is imported.

Ctrl-C ends the process at once while modules are imported: nothing is being written then, and some of them cannot be left
halfway. Later it raises KeyboardInterrupt, so that what is under way cleans up; a library that swallows that cannot keep the
command from ending as interrupted, and a second Ctrl-C does not wait. Modules of the working folder are not found, however
remctl was started: a `random.py` that lies about takes nothing's place. The module of an environment of one's own is:
`remctl.envs.modules`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

IMPORTING = "<frozen importlib._bootstrap>"
INTERRUPTED = 128 + signal.SIGINT
_heard: list[int] = []  # each Ctrl-C that raised KeyboardInterrupt


def main() -> NoReturn:
    """The console entry point."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, _interrupted)
        # Registered first, called last: Python gives a handler up before it unloads modules, which takes a second.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        sys.unraisablehook = _unraisable
    try:
        _find_no_modules_here()
        from remctl.cli import run

        status = run(sys.argv[1:])
        if _heard and status != INTERRUPTED:  # swallowed on the way
            _leave()
        if signal.getsignal(signal.SIGINT) is _interrupted:
            signal.signal(signal.SIGINT, lambda *_: os._exit(status))  # all is done and flushed
    except KeyboardInterrupt:
        _leave()
    sys.exit(status)


def _interrupted(signum: int, frame: FrameType | None) -> None:
    if _heard:
        _leave()
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            _leave()
        frame = frame.f_back
    _heard.append(signum)
    raise KeyboardInterrupt


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """What a finaliser raised goes no further; Ctrl-C may come in the middle of one."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(unraisable)


def _leave() -> NoReturn:
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
    try:
        os.write(2, f"{show_cursor}remctl: interrupted\n".encode())
    finally:
        os._exit(INTERRUPTED)


def _find_no_modules_here() -> None:
    with suppress(OSError):  # the working folder may be gone
        here = os.getcwd()
        if not sys.flags.safe_path and sys.path[0] in ("", here):  # of `python -m`
            del sys.path[0]
            if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == here:  # other processes find remctl there
                sys.path.append(here)


if __name__ == "__main__":
    main()
