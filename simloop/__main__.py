"""Run the command: the console script, and ``python -m simloop``."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Start the command so that Ctrl-C ends it without a traceback, also while it is being loaded."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # `simloop run` has its own, once there is something to save
    from simloop.cli import main as command

    command()


if __name__ == "__main__":
    main()
