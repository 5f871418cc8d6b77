"""A name server for the proxy's tests: answers as it is told, is silent or short when it is asked to be."""

import socket
import struct
import threading
from ipaddress import IPv4Address

from tests.netns.proxy_bed import inside


class NameServer(threading.Thread):
    """Answers A questions from `records`: one in turn, or all for names in `all.`; `big.test` is cut short over UDP."""

    def __init__(self, namespace: str) -> None:
        super().__init__(daemon=True)
        self.records: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.silent = False
        with inside(namespace):
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.tcp = socket.socket()
        self.udp.bind(("127.0.0.53", 53))
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind(("127.0.0.53", 53))
        self.tcp.listen()

    def run(self) -> None:
        threading.Thread(target=self._stream, daemon=True).start()
        while True:
            try:
                query, peer = self.udp.recvfrom(512)
            except OSError:
                return
            if not self.silent:
                self.udp.sendto(self.answer(query, "udp"), peer)

    def close(self) -> None:
        for sock in (self.udp, self.tcp):
            with sock:
                sock.shutdown(socket.SHUT_RDWR) if sock is self.tcp else None

    def _stream(self) -> None:
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            with sock:
                size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
                answer = self.answer(sock.recv(size, socket.MSG_WAITALL), "tcp")
                sock.sendall(len(answer).to_bytes(2, "big") + answer)

    def answer(self, query: bytes, transport: str) -> bytes:
        labels, position = [], 12
        while query[position]:
            labels.append(query[position + 1 : position + 1 + query[position]].decode())
            position += query[position] + 1
        name, kind = ".".join(labels), struct.unpack_from("!H", query, position + 1)[0]
        question = query[12 : position + 5]
        self.asked.append((name, transport))
        if name == "big.test" and transport == "udp":
            return query[:2] + struct.pack("!HHHHH", 0x8380, 1, 0, 0, 0) + question
        known = self.records.get(name)
        if known is None:
            return query[:2] + struct.pack("!HHHHH", 0x8183, 1, 0, 0, 0) + question
        if kind != 1:
            return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 0, 0, 0) + question
        if name.startswith("all."):
            given = known
        else:
            known.append(known.pop(0))
            given = known[-1:]
        records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + IPv4Address(text).packed for text in given]
        return query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(given), 0, 0) + question + b"".join(records)
