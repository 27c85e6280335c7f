"""What has no meaning in virtual time: one named error for each method of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from simloop.errors import UnsupportedError

__all__ = ["UNSUPPORTED_METHODS", "UnsupportedMethods"]

_SOCKETS = "there are no sockets, pipes or file descriptors in virtual time"
_PROCESSES = "there are no processes in virtual time"
_SIGNALS = "signals come in real time; asyncio.Runner and simloop.run handle Ctrl-C by themselves"
_NAMES = "there is no name service in virtual time"

UNSUPPORTED_METHODS: dict[str, str] = {
    **dict.fromkeys(("add_reader", "remove_reader", "add_writer", "remove_writer"), _SOCKETS),
    **dict.fromkeys(("add_signal_handler", "remove_signal_handler"), _SIGNALS),
    **dict.fromkeys(("create_connection", "create_server", "create_datagram_endpoint", "start_tls"), _SOCKETS),
    **dict.fromkeys(("create_unix_connection", "create_unix_server", "connect_accepted_socket"), _SOCKETS),
    **dict.fromkeys(("connect_read_pipe", "connect_write_pipe", "sendfile"), _SOCKETS),
    **dict.fromkeys(("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"), _SOCKETS),
    **dict.fromkeys(("sock_sendall", "sock_sendto", "sock_sendfile", "sock_connect", "sock_accept"), _SOCKETS),
    **dict.fromkeys(("getaddrinfo", "getnameinfo"), _NAMES),
    **dict.fromkeys(("subprocess_exec", "subprocess_shell"), _PROCESSES),
}
"""Each method of :class:`asyncio.AbstractEventLoop` that raises :class:`~simloop.UnsupportedError`, and why."""

_PLAIN = {"add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"}


def _refusal(name: str, why: str) -> Callable[..., Any]:
    def refuse(*args: object, **options: object) -> NoReturn:  # noqa: ARG001
        raise UnsupportedError(f"loop.{name}: {why}")

    async def refuse_when_awaited(*args: object, **options: object) -> NoReturn:
        refuse(*args, **options)

    return refuse if name in _PLAIN else refuse_when_awaited


class UnsupportedMethods:
    """The methods of an event loop that a virtual one does not have."""


for _name, _why in UNSUPPORTED_METHODS.items():
    _method = _refusal(_name, _why)
    _method.__name__ = _name
    _method.__qualname__ = f"UnsupportedMethods.{_name}"
    _method.__doc__ = f"Raise :class:`~simloop.UnsupportedError`: {_why}."
    setattr(UnsupportedMethods, _name, _method)
