"""Prefill on some workers, decode on others, as a breakpoint: whoever has the first token is handed back.

    policies: {route: disaggregated}
    hooks:
      - {at: first_token, group: prefill, call: hand_over}

The cluster routes it again, and ``disaggregated`` sends its keys and values to a worker that decodes. The schedule
stays whatever it is: nothing in it knows of the two pools.

Source: Patel et al., "Splitwise", ISCA 2024; Wu et al., "TokenSim", 2025, whose figure 2 has such a hook.
"""

from __future__ import annotations

from simloop.serving import Moment, Phase


async def hook(moment: Moment) -> None:
    """Give a request that goes on to decode back to the cluster."""
    if moment.worker is not None and moment.request.phase is Phase.DECODING:
        moment.worker.hand_back(moment.request)
