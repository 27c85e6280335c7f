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
    _check_network(scenario)
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


def _check_network(scenario: Scenario) -> None:
    """Build the network for as many workers as there will be."""
    from simloop.scenario.fabric import build_fabric

    groups = [(group.name, group.count * group.engine.data_parallel_size) for group in scenario.workers]
    workers = [(name, f"{name}-{place}") for name, count in groups for place in range(count)]
    if scenario.network is not None and len(workers) > 1:
        build_fabric(scenario.network, workers)


def _dry_run(scenario: Scenario) -> None:
    """Build one worker of each group, and open the workload: whatever that refuses, the run would."""
    from simloop.metrics import Records
    from simloop.scenario.build import build_cluster
    from simloop.workload import open_workload

    few = [msgspec.structs.replace(group, count=1) for group in scenario.workers]
    network = scenario.network  # of a file that says how many workers there are, what is left is how it is used
    if network is not None and network.path is not None:
        network = msgspec.structs.replace(network, path=None, bandwidth_gb_s=1.0)
    build_cluster(msgspec.structs.replace(scenario, workers=few, network=network), Records())
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
