"""A TCP proxy in front of a real server that does what networks do: it resets connections and cuts answers short."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["reset", "reset after the request", "half an answer", "garbage", "another encoding", "no answer"]
_GARBAGE = b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\nconnection: close\r\n\r\n{"output_ids":'
_ENCODED = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
_REFUSED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
_SAID = {"garbage": _GARBAGE, "another encoding": _ENCODED}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: closing sends RST


class Proxy:
    """Forwards to `upstream`; the next requests for samples meet `faults`, one each. A context manager."""

    def __init__(self, upstream: str, faults: Sequence[Fault] = ()) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self.faults = deque(faults)
        self.met: list[Fault] = []
        self.refused: list[
            str
        ] = []  # calls that are answered with status 500 from now on, each as often as it is there
        self.seen: list[str] = []  # the calls that were made, in order
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            fault: list[Fault] = []
            threading.Thread(target=self._requests, args=(client, server, fault), daemon=True).start()
            threading.Thread(target=self._answers, args=(client, server, fault), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, fault: list[Fault]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                path = data.split(b" ", 2)[1].partition(b"?")[0].decode() if data.startswith(b"POST /") else ""
                self.seen += [path] * bool(path)
                if path in self.refused:
                    self.refused.remove(path)
                    client.sendall(_REFUSED)
                    break
                if path == "/generate" and self.faults:
                    fault.append(self.faults.popleft())
                    self.met.append(fault[0])
                    if fault[0] == "reset":
                        _reset(client)
                        break
                    if fault[0] == "no answer":
                        continue
                    server.sendall(data)
                    if fault[0] == "reset after the request":
                        _reset(client)
                        break
                else:
                    server.sendall(data)
        server.close()

    def _answers(self, client: socket.socket, server: socket.socket, fault: list[Fault]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if fault and fault[0] == "half an answer":
                    client.sendall(data[: len(data) // 2])
                    break
                if fault and fault[0] in _SAID:
                    client.sendall(_SAID[fault[0]])
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
