"""A graph of endpoints, switches and links."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from simloop.errors import InputError, did_you_mean
from simloop.network.flow import Path
from simloop.network.link import Link, Sharing
from simloop.network.traffic import Traffic

__all__ = ["Fabric"]


class Fabric:
    """Nodes and links; a transfer takes the route with the fewest links and shares every link on it.

    The rates of all that is under way are max-min fair: they rise together until a link is full. A transfer occupies
    all links of its route at once (cut-through, not store-and-forward), and its latency is the sum of theirs. Where
    several routes are equally short, the one over the links that were added first is taken, always.

    Args:
        sharing: How transfers share a link: as for :class:`Link`. With ``"fifo"`` or a number a transfer begins when
            every link of its route has a place for it, in the order in which they came; nobody overtakes.

    Example:
        >>> fabric = Fabric()
        >>> for gpu in ("gpu0", "gpu1"):
        ...     fabric.connect(gpu, "switch", bandwidth_gb_s=50, latency_ns=500)
        >>> fabric.path("gpu0", "gpu1").latency_ns
        1000
    """

    def __init__(self, *, sharing: Sharing = "fair") -> None:
        self.sharing = sharing
        self._traffic = Traffic()
        self._nodes: dict[str, dict[str, Link]] = {}
        self._endpoints: dict[str, None] = {}
        self._links: dict[str, Link] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._parents: dict[str, dict[str, str]] = {}

    def __repr__(self) -> str:
        return f"Fabric of {len(self._endpoints)} endpoints, {len(self._links)} links"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The nodes that :meth:`add_endpoints` named, in that order."""
        return tuple(self._endpoints)

    @property
    def links(self) -> Mapping[str, Link]:
        """The links by name, ``"gpu0->switch"``, in the order in which they were added."""
        return MappingProxyType(self._links)

    def add_endpoints(self, nodes: Iterable[str]) -> None:
        """Add nodes that send and receive; others, like switches, come into being when they are connected."""
        for node in nodes:
            self._nodes.setdefault(node, {})
            self._endpoints[node] = None

    def connect(self, a: str, b: str, *, bandwidth_gb_s: float, latency_ns: int = 0, duplex: bool = True) -> None:
        """Add a link from ``a`` to ``b``, and one back.

        Args:
            a: A node; it is added when it is new.
            b: Another node.
            bandwidth_gb_s: GB/s (10^9 bytes), in each direction.
            latency_ns: Latency in ns.
            duplex: False adds the link from ``a`` to ``b`` alone.

        Raises:
            InputError: The two are the same or are connected already, or a number cannot be used.
        """
        if a == b:
            raise InputError(f"node {a!r} cannot be connected to itself")
        for src, dst in ((a, b), (b, a))[: 2 if duplex else 1]:
            name = f"{src}->{dst}"
            if name in self._links:
                raise InputError(f"the link {name} is there already")
            link = Link(bandwidth_gb_s, latency_ns, sharing=self.sharing, name=name, _traffic=self._traffic)
            self._nodes.setdefault(src, {})[dst] = self._links[name] = link
            self._nodes.setdefault(dst, {})
        self._paths.clear()
        self._parents.clear()

    def link(self, src: str, dst: str) -> Link:
        """Return the link from one node to its neighbour.

        Raises:
            InputError: There is none.
        """
        try:
            return self._links[f"{src}->{dst}"]
        except KeyError:
            hint = did_you_mean(f"{src}->{dst}", self._links)
            raise InputError(f"there is no link {src}->{dst}{hint}") from None

    def path(self, src: str, dst: str) -> Path:
        """Return the route from one node to another; the same object for the same two, as long as no link is added.

        Raises:
            InputError: A node is unknown, or there is no route.
        """
        path = self._paths.get((src, dst))
        if path is None:
            path = Path(tuple(self._route(src, dst)), self._traffic, name=f"{src}->{dst}")
            self._paths[src, dst] = path
        return path

    async def send(self, src: str, dst: str, nbytes: int) -> None:
        """Send ``nbytes`` from one node to another; return when the last of them has arrived.

        Cancelling it gives its share of every link to the others at once.

        Raises:
            InputError: A node is unknown, there is no route, or ``nbytes`` is not a number of bytes.
        """
        await self.path(src, dst).send(nbytes)

    def _route(self, src: str, dst: str) -> list[Link]:
        for node in (src, dst):
            if node not in self._nodes:
                raise InputError(f"node {node!r} is not in this fabric{did_you_mean(node, self._nodes)}")
        parents = self._parents.get(src)
        if parents is None:
            parents = self._parents[src] = self._tree(src)
        if dst not in parents:
            raise InputError(f"there is no route from {src!r} to {dst!r}")
        route = []
        while dst != src:
            route.append(self._nodes[parents[dst]][dst])
            dst = parents[dst]
        return route[::-1]

    def _tree(self, src: str) -> dict[str, str]:
        """Return, for each node that can be reached, the one before it on the shortest route from ``src``."""
        parents = {src: src}
        queue = deque([src])
        while queue:
            node = queue.popleft()
            for neighbour in self._nodes[node]:
                if neighbour not in parents:
                    parents[neighbour] = node
                    queue.append(neighbour)
        return parents
