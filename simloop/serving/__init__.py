"""The world that policies see: requests, batches, KV memory, workers, the cluster."""

from simloop.serving.batch import Batch
from simloop.serving.cluster import Cluster, ControlPolicy, RoutePolicy
from simloop.serving.cohort import Cohort
from simloop.serving.engine import Engine
from simloop.serving.generation import Generation, Token
from simloop.serving.hooks import MOMENTS, Hook, Hooks, Moment, MomentName, OperatorHook, OperatorMoment
from simloop.serving.kv import KVBlocks
from simloop.serving.kv_transfer import Preload, SendKV
from simloop.serving.lockstep import Lockstep
from simloop.serving.observed import ObservedCluster, ObservedWorker
from simloop.serving.policy import PolicyInfo, PolicySource, load_policy, policy_info, policy_names
from simloop.serving.recorder import Recorder
from simloop.serving.request import Phase, Request, Status, urgency
from simloop.serving.signals import Signals
from simloop.serving.stages import Stages, StageTiming
from simloop.serving.swap import SwapSpace
from simloop.serving.worker import SchedulePolicy, Worker

__all__ = [
    "MOMENTS",
    "Batch",
    "Cluster",
    "Cohort",
    "ControlPolicy",
    "Engine",
    "Generation",
    "Hook",
    "Hooks",
    "KVBlocks",
    "Lockstep",
    "Moment",
    "MomentName",
    "ObservedCluster",
    "ObservedWorker",
    "OperatorHook",
    "OperatorMoment",
    "Phase",
    "PolicyInfo",
    "PolicySource",
    "Preload",
    "Recorder",
    "Request",
    "RoutePolicy",
    "SchedulePolicy",
    "SendKV",
    "Signals",
    "StageTiming",
    "Stages",
    "Status",
    "SwapSpace",
    "Token",
    "Worker",
    "load_policy",
    "policy_info",
    "policy_names",
    "urgency",
]
