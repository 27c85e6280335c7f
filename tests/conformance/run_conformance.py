"""CPython's and anyio's own tests on simloop's loop: prints a table, and explains what does not pass.

    python tests/conformance/run_conformance.py [--only cpython|anyio] [MODULE ...]

CPython's tests come with Python (some builds leave them out, and then the script says so). anyio's come with its source
distribution, which is downloaded into a temporary folder, for the version that is installed. Exit status 1 when
something fails that is not explained in ``EXPLAINED`` below.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent

CPYTHON = [
    "test_base_events",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_futures",
    "test_futures2",
    "test_locks",
    "test_pep492",
    "test_queues",
    "test_runners",
    "test_staggered",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_waitfor",
]

ANYIO = [
    "test_concurrency_utils",
    "test_contextmanagers",
    "test_debugging",
    "test_eventloop",
    "test_functools",
    "test_futures",
    "test_itertools",
    "test_lowlevel",
    "test_synchronization",
    "test_taskgroups",
    "streams/test_buffered",
    "streams/test_memory",
    "streams/test_stapled",
    "streams/test_text",
]

_PRIVATE = "looks into the standard loop: its heap, its selector or its I/O"
_THREADS = "needs a thread; executors run inline in virtual time"

EXPLAINED = {
    r"test_nested_timeouts$": "two timers of one instant: what the first causes happens before the second runs",
    r"test_call_later_negative_delays$": "the past is now: such timers run in the order in which they were set",
    r"test_stop_while_run_in_complete$": "the standard test loop moves its clock once more after the stop",
    r"test_run_coroutine_threadsafe_with_exception$": _THREADS,
    r"VirtualLoopEventTests\.test_run_in_executor$": _THREADS,
    r"test_check_thread$": _THREADS,
    r"test_shutdown_default_executor_timeout$": _THREADS,
    r"test_timeout_rounding$": _PRIVATE,
    r"BaseEventLoopTests\.test__run_once": _PRIVATE,
    r"BaseEventLoopTests\.test_call_later$": _PRIVATE,
    r"test_custom_run_forever_integration$": _PRIVATE,
    r"test_run_forever_pre_stopped$": _PRIVATE,
    r"test_single_selecter_event_callback_after_stopping$": _PRIVATE,
    r"test_accept_connection_": _PRIVATE,
    r"test_fail_after_scope_cancelled_before_timeout": "passes, although marked as one that cannot: no clock runs on",
}
"""Part of a test's name -> why it does not pass."""


@attrs.frozen
class Outcome:
    """What became of one test."""

    test: str
    outcome: str
    detail: str

    @property
    def explanation(self) -> str | None:
        """Why the test does not pass, or None."""
        return next((why for pattern, why in EXPLAINED.items() if re.search(pattern, self.test.split("[")[0])), None)


def run_child(command: list[str], env: dict[str, str], folder: Path) -> Iterator[Outcome]:
    """Run a command and yield the outcomes that it prints, one JSON object a line."""
    environment = {**os.environ, **env}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    outcomes = [Outcome(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"test"')]
    if not outcomes:
        yield Outcome(" ".join(command), "failed", (done.stderr or done.stdout)[-500:])
    yield from outcomes


def run_cpython(module: str) -> Iterator[Outcome]:
    """Run one module of CPython's asyncio tests."""
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    yield from run_child([sys.executable, str(HERE / "cpython_child.py"), module], {"PYTHONPATH": path}, Path.cwd())


def run_anyio(module: str, source: Path) -> Iterator[Outcome]:
    """Run one module of anyio's tests from its source distribution."""
    env = {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1]), str(source.parent / "plugins")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = ["-q", "-s", "-p", "anyio_child", "-p", "no:cacheprovider"]
    yield from run_child([sys.executable, "-m", "pytest", *options, f"tests/{module}.py"], env, source)


def fetch_anyio(folder: Path) -> Path:
    """Download the source of the anyio that is installed, and two pytest plugins that its configuration names."""
    version = importlib.metadata.version("anyio")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    download = ["download", "--no-deps", "--no-binary", "anyio", "--dest", str(folder), f"anyio=={version}"]
    subprocess.run([*pip, *download], check=True)
    plugins = ["install", "--no-deps", "--target", str(folder / "plugins"), "pytest-mock", "pytest-timeout"]
    subprocess.run([*pip, *plugins], check=True)
    with tarfile.open(next(folder.glob("anyio-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"anyio-{version}"


def report(suite: str, results: dict[str, list[Outcome]]) -> list[Outcome]:
    """Print one table in Markdown and what it needs explained; return the failures that nothing explains."""
    print(f"\n| {suite} | passed | needs I/O, threads, signals | explained | unexplained | skipped |")
    print("|---|---|---|---|---|---|")
    unexplained: list[Outcome] = []
    reasons: dict[str, set[str]] = collections.defaultdict(set)
    for module, outcomes in results.items():
        counts = collections.Counter(outcome.outcome for outcome in outcomes)
        failed = [outcome for outcome in outcomes if outcome.outcome == "failed"]
        for outcome in failed:
            if outcome.explanation is not None:
                reasons[outcome.explanation].add(re.split(r"::|\.", outcome.test.split("[")[0])[-1])
        unknown = [outcome for outcome in failed if outcome.explanation is None]
        unexplained += unknown
        print(
            f"| {module} | {counts['passed']} | {counts['unsupported']} | {len(failed) - len(unknown)} "
            f"| {len(unknown)} | {counts['skipped']} |"
        )
    print()
    for why, tests in reasons.items():
        print(f"- {', '.join(f'`{test}`' for test in sorted(tests))}: {why}")
    return unexplained


def run_all_cpython(modules: list[str]) -> list[Outcome]:
    """Run CPython's tests, or say that this Python has none; return the failures that nothing explains."""
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None:
        print("This build of Python leaves out its own tests (test.test_asyncio): CPython's cannot run here.")
        return []
    there = [name for name in CPYTHON if importlib.util.find_spec(f"test.test_asyncio.{name}") is not None]
    wanted = [name for name in there if not modules or name in modules]
    return report("CPython's tests", {name: list(run_cpython(name)) for name in wanted})


def run_all_anyio(modules: list[str]) -> list[Outcome]:
    """Run anyio's tests; return the failures that nothing explains."""
    with tempfile.TemporaryDirectory() as folder:
        source = fetch_anyio(Path(folder))
        there = [name for name in ANYIO if (source / "tests" / f"{name}.py").is_file()]
        wanted = [name for name in there if not modules or name.split("/")[-1] in modules]
        return report("anyio's tests", {name: list(run_anyio(name, source)) for name in wanted})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cpython", "anyio"), help="run one of the two suites")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="run only these, for example test_tasks")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, anyio {importlib.metadata.version('anyio')}")
    unexplained: list[Outcome] = []
    if options.only != "anyio":
        unexplained += run_all_cpython(options.modules)
    if options.only != "cpython":
        unexplained += run_all_anyio(options.modules)
    for outcome in unexplained:
        print(f"UNEXPLAINED {outcome.test}: {outcome.detail}", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
