"""Run the command as ``python -m simloop``."""

from simloop.cli import main

if __name__ == "__main__":
    main()
