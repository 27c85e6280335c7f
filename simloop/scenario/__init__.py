"""Scenarios: one file that says which cluster, which requests and which limits; strict, with errors in one line."""

from simloop.scenario.loading import find_scenario, load_scenario
from simloop.scenario.structs import Network, Policies, PolicyRef, Scenario, Timing, WorkerGroup

__all__ = ["Network", "Policies", "PolicyRef", "Scenario", "Timing", "WorkerGroup", "find_scenario", "load_scenario"]
