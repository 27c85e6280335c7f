"""Every Python block of the README and the docs runs as it stands.

Blocks of one page share a namespace and a folder, top to bottom. A block after ``<!-- not run -->`` is only compiled.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?P<mark><!-- not run[^\n]*-->\n+)?```(?P<head>python|yaml|json|toml|csv)(?P<title>[^\n]*)\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path) -> list[tuple[int, re.Match[str]]]:
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start("code")), match) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    for line, match in blocks(page):
        title = re.search(r'title="([^"]+)"', match["title"])
        if title:  # a file that later blocks use
            (tmp_path / title[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / title[1]).write_text(match["code"], encoding="utf-8")
        if match["head"] == "python":
            code = compile("\n" * line + match["code"], str(page), "exec")
            if not match["mark"] and not title:
                exec(code, namespace)
            elif title and "__main__" in match["code"]:
                runpy.run_path(title[1], run_name="__main__")
