"""An editor's side of the protocol, over the standard input and output of a real `trace-dsl lsp`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 60
Message = dict[str, Any]

CAPABILITIES: Message = {
    "general": {"positionEncodings": ["utf-16"]},
    "textDocument": {"codeAction": {"codeActionLiteralSupport": {"codeActionKind": {"valueSet": ["quickfix"]}}}},
    "workspace": {
        "didChangeWatchedFiles": {"dynamicRegistration": True},
        "inlayHint": {"refreshSupport": True},
        "configuration": False,
    },
}


class Editor:
    """Starts a server in a folder; `request` waits for the answer, `published` for a document's next findings."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "trace_dsl", "lsp", "--stdio"))],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._received: Queue[Message | None] = Queue()
        self._waiting: list[Message] = []
        self._number = 0
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while header := self.process.stdout.readline():
            length = int(header.decode().removeprefix("Content-Length: "))
            while self.process.stdout.readline().strip():
                pass
            self._received.put(json.loads(self.process.stdout.read(length)))
        self._received.put(None)

    def send_raw(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def send(self, message: Message) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.send_raw(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def notify(self, method: str, params: object) -> None:
        self.send({"method": method, "params": params})

    def wait(self, wanted: str, value: object) -> Message:
        """The next message in which the field `wanted` is `value`; others stay for later."""
        for index, message in enumerate(self._waiting):
            if message.get(wanted) == value:
                return self._waiting.pop(index)
        while True:
            message = self._received.get(timeout=PATIENCE)
            assert message is not None, "the server ended"
            if message.get(wanted) == value:
                return message
            self._waiting.append(message)

    def answer(self, method: str, params: object) -> Message:
        """The whole response to a request."""
        self._number += 1
        self.send({"id": self._number, "method": method, "params": params})
        return self.wait("id", self._number)

    def request(self, method: str, params: object) -> Any:
        """The result of a request that succeeds."""
        response = self.answer(method, params)
        assert "error" not in response, response
        return response["result"]

    def start(self, options: object = None) -> Message:
        """Say hello; gives what the server can do."""
        result = self.request(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": self.folder.as_uri(),
                "capabilities": CAPABILITIES,
                "initializationOptions": options,
            },
        )
        self.notify("initialized", {})
        capabilities: Message = result["capabilities"]
        return capabilities

    def uri(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def open(self, name: str, text: str) -> list[Message]:
        """Open a document with a text of its own; gives its findings."""
        document = {"uri": self.uri(name), "languageId": "trace", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        return self.published(name)

    def change(self, name: str, text: str) -> list[Message]:
        """Put another text into an open document; gives its findings."""
        document = {"uri": self.uri(name), "version": 2}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
        return self.published(name)

    def published(self, name: str) -> list[Message]:
        message = self.wait("method", "textDocument/publishDiagnostics")
        assert message["params"]["uri"] == self.uri(name)
        found: list[Message] = message["params"]["diagnostics"]
        return found

    def at(self, name: str, line: int, character: int) -> Message:
        """The parameters of most questions."""
        return {"textDocument": {"uri": self.uri(name)}, "position": {"line": line, "character": character}}

    def stop(self) -> int:
        """Say goodbye; gives the exit code."""
        self.request("shutdown", None)
        self.notify("exit", None)
        return self.process.wait(timeout=PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
