"""What a scenario cannot mean although each of its values is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simloop.errors import InputError

if TYPE_CHECKING:
    from simloop.scenario.structs import Scenario
    from simloop.workload import Arrival

__all__ = ["check_scenario"]


def check_scenario(scenario: Scenario) -> None:
    """Find the mistakes that involve several keys, and the names that stand for nothing.

    Raises:
        InputError: One was found; its ``path`` says where in the scenario.
    """
    _check_groups(scenario)
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


def _dry_run(scenario: Scenario) -> None:
    """Build one worker of each group, and open the workload: whatever that refuses, the run would."""
    from simloop.metrics import Records
    from simloop.scenario.build import build_cluster
    from simloop.workload import open_workload

    few = [msgspec.structs.replace(group, count=1) for group in scenario.workers]
    build_cluster(msgspec.structs.replace(scenario, workers=few), Records())
    try:
        workload = open_workload(scenario.workload, seed=scenario.seed)
    except InputError as error:
        if error.file is not None:  # a row of a trace, say
            raise
        path = "workload" if error.path is None else error.path
        raise InputError(error.message, path=path) from error
    if scenario.workload.trace is not None:
        _check_hashes(scenario, next(iter(workload)))


def _check_hashes(scenario: Scenario, first: Arrival) -> None:
    """Refuse KV blocks that the block hashes of a trace say nothing about; its first request stands for all."""
    if first.hash_ids is None:
        return
    for index, group in enumerate(scenario.workers):
        if group.engine.enable_prefix_caching and first.hash_block_size % group.engine.block_size:
            raise InputError(
                f"found {group.engine.block_size}, expected a divisor of {first.hash_block_size}, the tokens that a "
                "block hash of the trace stands for; without enable_prefix_caching any size will do",
                path=f"workers[{index}].engine.block_size",
            )
