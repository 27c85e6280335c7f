"""Prefill on some workers, decode on others, as a breakpoint: whoever has the first token is handed back.

    policies: {route: disaggregated}
    hooks:
      - {at: first_token, call: hand_over}

The cluster routes it again, and ``disaggregated`` sends its keys and values to a worker that decodes. The schedule
stays whatever it is: nothing in it knows of the two pools.

Source: Patel et al., "Splitwise", ISCA 2024; Wu et al., "TokenSim", 2025, whose figure 2 has such a hook.

Parameters:
    prefill: Name of the group of workers that read prompts.
"""

from __future__ import annotations

from simloop.serving import Moment, Phase


async def hook(moment: Moment, *, prefill: str = "prefill") -> None:
    """Give a request that goes on to decode back to the cluster."""
    worker, request = moment.worker, moment.request
    if worker is not None and worker.group == prefill and request.phase is Phase.DECODING:
        worker.hand_back(request)
