"""Run the command as ``python -m simloop.cli``."""

from __future__ import annotations

from simloop.__main__ import main

if __name__ == "__main__":
    main()
