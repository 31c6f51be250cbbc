"""An HTTP server that speaks the OpenAI chat protocol, well or badly: the model's name says how.

`python -m tests.annotate.server` prints its port and serves until it is ended.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_seen: Counter[str] = Counter()
_last: dict[str, Any] = {}
_lock = threading.Lock()

HOSTILE = [
    '{"error_spans": [{"segment_ids": [1], "error_type": "sign_error"}]} and more',
    '{"error_spans": [{"segment_ids": [99], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [0], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [-1], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [true], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [1.0], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": ["1"], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [1, 3], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [2, 1], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [1, 1], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [1, 2, 3, 4], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [], "error_type": "sign_error"}]}',
    '{"error_spans": [{"segment_ids": [1], "error_type": "the teacher must see CANARY"}]}',
    '{"error_spans": [{"segment_ids": [1], "error_type": "insight"}]}',
    '{"error_spans": [{"segment_ids": [1], "error_type": "sign_error", "text": "CANARY"}]}',
    '{"error_spans": [' + ", ".join(['{"segment_ids": [1], "error_type": "sign_error"}'] * 4) + "]}",
    '{"key_spans": [{"segment_ids": [1], "step_type": "insight"}]}',
    '{"error_spans": null}',
    '{"error_spans": {}}',
    "{}",
    "[]",
    "null",
    "NaN",
    "[" * 5000,
    '{"a":' * 5000,
    '{"error_spans": [{"segment_ids": [' + "9" * 5000 + '], "error_type": "sign_error"}]}',
    "\ud800",
    '{"error_spans": [{"segment_ids": [1], "error_type": "\\ud800"}]}',
    "x" * 100_000,
    "```json\n{}\n```",
    "I am sorry, I cannot help with that.",
]


def spans_answer(segment: int, question: str) -> str:
    """A right answer to a question: one span of one segment."""
    if "right result" in question:
        return json.dumps({"key_spans": [{"segment_ids": [segment], "step_type": "insight"}]})
    return json.dumps({"error_spans": [{"segment_ids": [segment], "error_type": "sign_error"}]})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._json({"seen": dict(_seen), "last": _last})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with _lock:
            _seen[body["model"]] += 1
            number = _seen[body["model"]]
            _last.update(body=body, authorization=self.headers.get("authorization"), path=self.path)
        getattr(self, f"_{body['model'].partition(':')[0]}")(body, number)

    def _good(self, body: dict[str, Any], number: int) -> None:
        self._answer(spans_answer(1, body["messages"][0]["content"]))

    def _fenced(self, body: dict[str, Any], number: int) -> None:
        self._answer(f"<think>hm</think>\n```json\n{spans_answer(1, body['messages'][0]['content'])}\n```")

    def _none(self, body: dict[str, Any], number: int) -> None:
        self._answer('{"error_spans": []}')

    def _hostile(self, body: dict[str, Any], number: int) -> None:
        self._answer(HOSTILE[number % len(HOSTILE)])

    def _garbage(self, body: dict[str, Any], number: int) -> None:
        rng = random.Random(number)
        kind = rng.randrange(4)
        if kind == 0:
            self._body(rng.randbytes(rng.randint(0, 300)))
        elif kind == 1:
            self._answer(HOSTILE[rng.randrange(len(HOSTILE))])
        elif kind == 2:
            self._json(rng.choice([[], 3, None, {"choices": []}, {"choices": [{"message": 7}]}, {"choices": "x"}]))
        else:
            self._json({"choices": [{"message": {"content": rng.choice([None, "", 3, [], {}])}}], "usage": "x"})

    def _slow(self, body: dict[str, Any], number: int) -> None:
        time.sleep(30)

    def _drip(self, body: dict[str, Any], number: int) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            self.wfile.write(b" ")
            time.sleep(0.05)

    def _half(self, body: dict[str, Any], number: int) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [{"mess')
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _reset(self, body: dict[str, Any], number: int) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _endless(self, body: dict[str, Any], number: int) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    def _noise(self, body: dict[str, Any], number: int) -> None:
        self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
        self.close_connection = True

    def _flaky(self, body: dict[str, Any], number: int) -> None:
        if number % 2:
            self._body(b"overloaded", status=503)
        else:
            self._good(body, number)

    def _broken(self, body: dict[str, Any], number: int) -> None:
        self._body(b"no", status=500)

    def _refuse(self, body: dict[str, Any], number: int) -> None:
        text = f"response_format is not supported; you sent {self.headers.get('authorization')}"
        self._body(text.encode(), status=400)

    def _tell(self, body: dict[str, Any], number: int) -> None:
        self._answer(f"you sent {self.headers.get('authorization')}")

    def _cut(self, body: dict[str, Any], number: int) -> None:
        self._answer('{"error_spans": [', finish="length")

    def _half_good(self, body: dict[str, Any], number: int) -> None:
        if number % 10 < 6:
            self._answer("what?")
        else:
            self._good(body, number)

    def _answer(self, text: str, finish: str = "stop") -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self._json({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})

    def _json(self, value: Any) -> None:
        self._body(json.dumps(value).encode())

    def _body(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """A client that hangs up is what some modes provoke."""


@contextmanager
def serving() -> Iterator[str]:
    """A server process; gives its base URL."""
    process = subprocess.Popen([sys.executable, "-m", "tests.annotate.server"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
