"""nftables through libnftables: run a transaction, read counters, and see who else changes our tables.

Invariants: one command buffer is one atomic transaction; nothing here knows what the rules mean. The library works in
the network namespace of the calling thread.
"""

import ctypes
import errno
import json
import socket
from typing import Final

from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import NETLINK_NETFILTER, messages

_LIBRARY: Final = "libnftables.so.1"
_COMPLAINT: Final = 400
"""Characters of a complaint that are shown: nft quotes the whole line it did not like."""
_JSON_OUTPUT: Final = 1 << 4
_RECEIVE_BUFFER_FORCE: Final = 33
_GROUP: Final = 7
_NEW_GENERATION: Final = (10 << 8) | 15
_FAMILIES: Final = frozenset({1, 5})
"""NFPROTO_INET and NFPROTO_NETDEV."""


class Nft:
    """A libnftables context."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise KernelError(f"{_LIBRARY} cannot be loaded: {error}") from error
        for name in ("nft_ctx_new", "nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_buffer_output(self._context)

    def run(self, text: str, *, as_json: bool = False, dry: bool = False) -> str:
        """Run commands and give their output; raises KernelError with nft's first complaint.

        `dry`: the kernel checks the transaction whole and does not commit it.
        """
        self._library.nft_ctx_set_dry_run(self._context, ctypes.c_bool(dry))
        self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(_JSON_OUTPUT if as_json else 0))
        code = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output, complaint = self._text("output"), self._text("error")
        if code != 0:
            reason = " ".join(complaint.split())[:_COMPLAINT] or "no reason given"
            raise KernelError(f"nftables refused the rules: {reason}")
        return output

    def _text(self, which: str) -> str:
        pointer = getattr(self._library, f"nft_ctx_get_{which}_buffer")(self._context)
        return ctypes.string_at(pointer).decode(errors="replace") if pointer else ""

    def counters(self, *, family: str, table: str) -> dict[str, int]:
        """Packets by named counter of a table; empty when the table is not there."""
        try:
            listing = json.loads(self.run(f"list counters table {family} {table}", as_json=True))
        except KernelError:
            return {}
        entries = (item["counter"] for item in listing["nftables"] if "counter" in item)
        return {entry["name"]: entry["packets"] for entry in entries}

    def elements(self, *, table: str, name: str) -> list[str]:
        """The elements of a set in an inet table that nft gives as texts; empty when it is not there."""
        try:
            listing = json.loads(self.run(f"list set inet {table} {name}", as_json=True))
        except KernelError:
            return []
        elements = (element for item in listing["nftables"] for element in item.get("set", {}).get("elem", []))
        return [element for element in elements if isinstance(element, str)]

    def close(self) -> None:
        """Free the context; using it afterwards is an error."""
        self._library.nft_ctx_free(self._context)


class Watch:
    """Sees every change anyone makes to the tables of one name, from the kernel's own notices.

    The kernel sends a transaction's notices, then one for the new generation of rules, before it answers whoever made
    the change. So after a transaction of ours exactly one generation holds changes of our tables.
    """

    def __init__(self, table: str) -> None:
        self._table = table.encode() + b"\0"
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 1 << 23)
        self._socket.bind((0, 1 << (_GROUP - 1)))
        self._socket.setblocking(False)
        self._touched = False

    def generations(self) -> int | None:
        """How many transactions since the last call changed our tables; None when notices were lost."""
        count = 0
        lost = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return None if lost else count
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            for kind, _, body in messages(data):
                if kind == _NEW_GENERATION:
                    count += self._touched
                    self._touched = False
                elif body[0] in _FAMILIES and body[8 : 8 + len(self._table)] == self._table:
                    self._touched = True

    def close(self) -> None:
        self._socket.close()
