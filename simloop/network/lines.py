"""Waiting in line where a link lets only so many transfers be under way at once.

A transfer begins when it is the first in the lines of all limited links on its way and each has a place for it. Nobody
overtakes: who waits for one link holds up those behind on the others (head-of-line blocking). Lines keep the order in
which transfers came, so two never wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simloop.network.flow import Flow, Path
    from simloop.network.link import Link

__all__ = ["let_in", "line_up", "step_out"]


def line_up(flow: Flow) -> list[Path]:
    """Put a flow at the end of the lines on its way; return the paths on which flows begin."""
    flow.path.waiting += 1
    for link in flow.path.limited:
        link.line.append(flow)
    return let_in(flow.path.limited)


def step_out(flow: Flow, *, was_in_line: bool) -> list[Path]:
    """Give back a cancelled flow's places, in the lines or on the links; return the paths on which flows begin."""
    flow.path.waiting -= was_in_line
    for link in flow.path.limited:
        if was_in_line:
            link.line.remove(flow)
        else:
            link.free += 1
    return let_in(flow.path.limited)


def let_in(links: Iterable[Link]) -> list[Path]:
    """Let all begin who may, where one of these links has places or a new first in line; return their paths."""
    entered, look = [], list(links)
    while look:
        line = look.pop().line
        while line and all(link.free > 0 and link.line[0] is line[0] for link in line[0].path.limited):
            flow = line[0]
            for link in flow.path.limited:
                link.line.popleft()
                link.free -= 1
                look.append(link)  # whoever is first there now
            flow.path.waiting -= 1
            flow.path.arriving.append(flow)
            entered.append(flow.path)
    return entered
