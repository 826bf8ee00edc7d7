"""`remctl` and `python -m remctl`: what must be so before anything else is imported.

Ctrl-C ends the process at once while modules are imported: nothing is being written then, and some of them cannot be left
halfway. Modules of the working folder are found, however remctl was started, after all others: an environment of one's own
is as good as an installed one, and a `random.py` that lies about takes nothing's place.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

IMPORTING = "<frozen importlib._bootstrap>"
INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """The console entry point."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, _interrupted)
    _find_modules_here()
    try:
        from remctl.cli import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        _leave()
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))  # all is done and flushed
    sys.exit(status)


def _interrupted(signum: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            _leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave() -> NoReturn:
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
    try:
        os.write(2, f"{show_cursor}remctl: interrupted\n".encode())
    finally:
        os._exit(INTERRUPTED)


def _find_modules_here() -> None:
    with suppress(OSError):  # the working folder may be gone
        here = os.getcwd()
        if not sys.flags.safe_path:
            if sys.path[0] in ("", here):  # of `python -m`
                del sys.path[0]
            sys.path.append(here)


if __name__ == "__main__":
    main()
