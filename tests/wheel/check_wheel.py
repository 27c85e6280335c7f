"""Build the wheel, install it in an empty environment, and see that it stands alone.

Run by hand or from `.ci/run`: ``python tests/wheel/check_wheel.py [FOLDER]``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Return 0 when the wheel holds what it must and the installed command runs."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    wheel = next(folder.glob("simloop_llm-*.whl"))
    check_names(wheel)
    venv.create(folder / "venv", with_pip=True)
    binaries = folder / "venv" / "bin"
    call(str(binaries / "pip"), "install", "-q", str(wheel))
    run = [str(binaries / "simloop"), "run", "quickstart", "--requests", "50", "--json"]
    summary = json.loads(call(*run, cwd=folder))
    if summary["completed"] != 50:
        raise SystemExit(f"the installed command completed {summary['completed']} of 50 requests")
    print(f"{wheel.name}: only top-level name is simloop, installed alone, 50 requests served")
    return 0


def check_names(wheel: Path) -> None:
    """Stop unless the wheel has `simloop` as its only package and carries every policy, device and config."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    if tops != {"simloop"}:
        raise SystemExit(f"top-level names of the wheel: {sorted(tops)}, expected simloop alone")
    for kind in ("policies", "devices", "configs"):
        for path in (ROOT / kind).iterdir():
            if path.is_file() and f"simloop/_content/{kind}/{path.name}" not in names:
                raise SystemExit(f"{kind}/{path.name} is not in the wheel")
    if "simloop/py.typed" not in names:
        raise SystemExit("py.typed is not in the wheel")


def call(*command: str, cwd: Path | None = None) -> str:
    """Run a command and return what it printed; stop if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
