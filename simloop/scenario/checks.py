"""What a scenario cannot mean although each of its values is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simloop.errors import InputError

if TYPE_CHECKING:
    from simloop.scenario.structs import Scenario

__all__ = ["check_scenario"]


def check_scenario(scenario: Scenario) -> None:
    """Find the mistakes that involve several keys, and the names that stand for nothing.

    Raises:
        InputError: One was found; its ``path`` says where in the scenario.
    """
    _check_groups(scenario)
    _check_engines(scenario)
    _dry_run(scenario)


def _check_groups(scenario: Scenario) -> None:
    seen: dict[str, int] = {}
    for index, group in enumerate(scenario.workers):
        if group.name in seen:
            raise InputError(
                f"found {group.name!r}, which workers[{seen[group.name]}] is called already, expected another name",
                path=f"workers[{index}].name",
            )
        seen[group.name] = index


def _check_engines(scenario: Scenario) -> None:
    for index, group in enumerate(scenario.workers):
        engine = group.engine
        if engine.max_num_batched_tokens < engine.max_num_seqs:
            raise InputError(
                f"found {engine.max_num_batched_tokens}, expected at least max_num_seqs ({engine.max_num_seqs}): "
                "every running sequence needs a token of the budget",
                path=f"workers[{index}].engine.max_num_batched_tokens",
            )


def _dry_run(scenario: Scenario) -> None:
    """Build one worker of each group, and open the workload: whatever that refuses, the run would."""
    from simloop.metrics import Records
    from simloop.scenario.build import build_cluster
    from simloop.workload import open_workload

    few = [msgspec.structs.replace(group, count=1) for group in scenario.workers]
    build_cluster(msgspec.structs.replace(scenario, workers=few), Records())
    try:
        open_workload(scenario.workload, seed=scenario.seed)
    except InputError as error:
        if error.file is not None:  # a row of a trace, say
            raise
        path = "workload" if error.path is None else error.path
        raise InputError(error.message, path=path) from error
