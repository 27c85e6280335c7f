"""The loop under every roof: asyncio.Runner, anyio, pytest-asyncio, threads, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from simloop import clock
from simloop.clock.unsupported import UNSUPPORTED_METHODS
from simloop.errors import UnsupportedError


async def twenty_five_hours() -> float:
    await asyncio.sleep(24 * 3600)
    await clock.sleep(3600)
    return clock.now()


def test_asyncio_runner() -> None:
    with asyncio.Runner(loop_factory=clock.new_event_loop) as runner:
        assert runner.run(twenty_five_hours()) == 25 * 3600
        assert runner.run(twenty_five_hours()) == 50 * 3600


def test_anyio_run() -> None:
    options = {"loop_factory": clock.new_event_loop}
    assert anyio.run(twenty_five_hours, backend_options=options) == 25 * 3600


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": clock.new_event_loop}


@pytest.mark.anyio
async def test_anyio_pytest_plugin() -> None:
    start = clock.now()
    assert await twenty_five_hours() == start + 25 * 3600


CONFTEST = """
import simloop

def pytest_asyncio_loop_factories(config, item):
    return {"simloop": simloop.new_event_loop}
"""

TESTS = """
import asyncio
import pytest
import simloop

@pytest.mark.asyncio
async def test_time_jumps():
    await asyncio.sleep(24 * 3600)
    await simloop.sleep(3600)
    assert simloop.now() == 25 * 3600

@pytest.mark.asyncio
async def test_a_deadlock_fails_the_test():
    await asyncio.Event().wait()
"""


def test_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", str(tmp_path)]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "DeadlockError: nothing is ready and no timer is set at 0.0 s" in done.stdout


def test_a_nested_run_is_refused_and_leaves_the_outer_alone() -> None:
    async def main() -> float:
        with pytest.raises(RuntimeError, match=r"simloop\.run cannot be called from a running event loop"):
            clock.run(twenty_five_hours)
        await clock.sleep(1)
        return clock.now()

    assert clock.run(main) == 1


def test_two_loops_in_two_threads_keep_their_own_time() -> None:
    times: dict[int, float] = {}

    def run(hours: int) -> None:
        async def main() -> float:
            for _ in range(1000):
                await clock.sleep(3.6 * hours)
            return clock.now()

        times[hours] = clock.run(main)

    threads = [threading.Thread(target=run, args=(hours,)) for hours in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times == {hours: pytest.approx(3600 * hours) for hours in (1, 2, 3)}


def test_executors_run_inline_at_one_instant() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def work() -> tuple[int, int]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        assert clock.run(twenty_five_hours) == 25 * 3600  # another run, inside
        return threading.get_ident(), variable.get()

    async def main() -> tuple[tuple[int, int], float]:
        await clock.sleep(1)
        variable.set(3)
        result = await asyncio.to_thread(work)
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0)
        await clock.sleep(1)
        return result, clock.now()

    assert clock.run(main) == ((threading.get_ident(), 3), 2)


def test_waiting_inline_for_the_loop_is_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def wait() -> None:
            coro = clock.sleep(1)
            try:
                asyncio.run_coroutine_threadsafe(coro, loop).result()
            finally:
                coro.close()

        await asyncio.to_thread(wait)

    with pytest.raises(UnsupportedError, match="would wait for a loop that waits for it"):
        clock.run(main)


def test_a_foreign_thread_is_refused() -> None:
    caught: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except UnsupportedError as error:
                caught.append(error)

        thread = threading.Thread(target=call, name="intruder")
        thread.start()
        thread.join()
        loop.call_soon_threadsafe(caught.append, ValueError("own thread"))
        await clock.sleep(1)

    clock.run(main)
    assert "called by thread 'intruder': virtual time does not wait for threads" in str(caught[0])
    assert repr(caught[1]) == "ValueError('own thread')"


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_METHODS))
def test_each_unsupported_method_has_a_named_error(name: str) -> None:
    async def main() -> None:
        result = getattr(asyncio.get_running_loop(), name)()
        await result

    with pytest.raises(UnsupportedError, match=rf"^loop\.{name}: "):
        clock.run(main)


def test_everything_that_asyncio_leaves_open_is_supported_or_named() -> None:
    """Whatever BaseEventLoop only declares must be in the list, also in the next Python."""
    loop = clock.new_event_loop()
    declared = {name for name in vars(asyncio.AbstractEventLoop) if not name.startswith("_")}
    open_ended = {
        name for name in declared if getattr(clock.VirtualLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    }
    loop.close()
    assert open_ended == set()


def test_eager_tasks_are_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        coro = clock.sleep(0)
        with pytest.raises(UnsupportedError, match="eagerly"):
            await loop.create_task(coro, eager_start=True)  # type: ignore[call-arg]
        coro.close()
        await loop.create_task(clock.sleep(0), eager_start=False)  # type: ignore[call-arg]
        if sys.version_info >= (3, 12):
            with pytest.raises(UnsupportedError, match="eagerly"):
                loop.set_task_factory(asyncio.eager_task_factory)

    clock.run(main)


def test_async_generators_are_closed_in_the_order_of_their_first_step() -> None:
    closed: list[int] = []

    async def numbers(number: int) -> AsyncIterator[int]:
        try:
            yield number
        finally:
            await clock.sleep(0)
            closed.append(number)

    generators = [numbers(number) for number in range(20)]

    async def main() -> None:
        for generator in generators:
            await anext(generator)

    clock.run(main)
    assert closed == list(range(20))


INTERRUPTED = """
import asyncio, os, signal, sys
import simloop

async def main():
    try:
        for number in range(10**9):
            if number == 1000:
                os.kill(os.getpid(), signal.SIGINT)
            await SLEEP(1)
    finally:
        await simloop.sleep(5)
        print("cleaned up", int(simloop.now()) < 10**6, flush=True)

try:
    RUN
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent the POSIX way")
@pytest.mark.parametrize("sleep", ["simloop.sleep", "asyncio.sleep"])
@pytest.mark.parametrize(
    "run",
    ["simloop.run(main)", "with asyncio.Runner(loop_factory=simloop.new_event_loop) as runner: runner.run(main())"],
)
def test_ctrl_c_cancels_main_and_is_raised(sleep: str, run: str) -> None:
    code = INTERRUPTED.replace("SLEEP", sleep).replace("RUN", run)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:2] == ["cleaned up True", "interrupted"], done.stderr


@pytest.mark.skipif(os.name == "nt", reason="there is no interval timer")
def test_a_signal_handler_may_cancel_at_any_moment() -> None:
    """Interrupt a busy loop by a real timer, again and again: no cancellation is lost, none comes twice."""
    sent = caught = caught_by_both = 0
    stop = False

    async def victim() -> None:
        nonlocal caught
        while not stop:
            try:
                await clock.sleep(1)
            except asyncio.CancelledError:
                caught += 1

    async def victim_of_both() -> None:
        nonlocal caught_by_both
        while not stop:
            try:
                await clock.sleep(1)
            except asyncio.CancelledError:
                caught_by_both += 1

    async def main() -> None:
        nonlocal stop
        task, other = asyncio.create_task(victim()), asyncio.create_task(victim_of_both())

        def interrupt(*_: object) -> None:
            nonlocal sent
            other.cancel()
            if sent == caught:
                sent += 1
                task.cancel()

        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            while caught < 300:
                await clock.sleep(1)
                other.cancel()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        await clock.sleep(2)
        stop = True
        await asyncio.gather(task, other)

    clock.run(main)
    assert sent == caught >= 300
    assert caught_by_both >= 300
