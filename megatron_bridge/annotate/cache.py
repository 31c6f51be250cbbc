"""Answers kept on disk, one file a question: whole or not there, shared by the ranks of a run.

A disk that is full costs the answers that could not be kept, nothing else; how many is counted.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from megatron_bridge.annotate.answers import read_answer
from megatron_bridge.annotate.ask import Asker, key_of
from megatron_bridge.annotate.questions import Question
from megatron_bridge.annotation import Reply, Usage

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_numbers = itertools.count()


class CachedAsker:
    """Answers from `folder` what was answered before, and asks `asker` for the rest.

    `settings` are what decides an answer beside the question. Answers that cannot be read as an annotation are not
    kept.
    """

    def __init__(self, asker: Asker, folder: Path, settings: Mapping[str, Any]) -> None:
        self._asker, self._folder, self._settings = asker, folder, settings

    def start(self) -> None:
        """See `Asker.start`."""
        self._asker.start()

    def ask(self, questions: Sequence[Question], *, of: int) -> list[Reply]:
        """See `Asker.ask`. Equal questions are asked once."""
        keys = [key_of(question, self._settings) for question in questions]
        found = {key: self._read(key) for key in dict.fromkeys(keys)}
        missing = {key: question for key, question in zip(keys, questions, strict=True) if not found[key].usage.cached}
        asked = self._asker.ask(list(missing.values()), of=of)
        for (key, question), reply in zip(missing.items(), asked, strict=True):
            failure = found[key].usage.cache_failure
            if reply.missing is None and read_answer(reply.text, question).missing is None:
                failure = self._write(key, reply.text) or failure
            found[key] = replace(reply, usage=replace(reply.usage, cache_failure=failure))
        replies, paid = [], set()
        for key in keys:
            reply = found[key]
            if key in paid:  # another response asks the same: its answer cost nothing more
                reply = replace(reply, usage=Usage(cached=reply.missing is None))
            replies.append(reply)
            paid.add(key)
        return replies

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    def _read(self, key: str) -> Reply:
        """A kept answer: `usage.cached` is set where there is one."""
        try:
            stored = json.loads(self._path(key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Reply()
        except (OSError, ValueError, RecursionError):  # half written when the machine stopped, or not ours
            return Reply(usage=Usage(cache_failure="unreadable"))
        if not isinstance(stored, dict) or not isinstance(stored.get("answer"), str):
            return Reply(usage=Usage(cache_failure="unreadable"))
        return Reply(text=stored["answer"], usage=Usage(cached=True))

    def _write(self, key: str, text: str) -> str | None:
        """Keep an answer; returns why it could not be kept."""
        path = self._path(key)
        aside = path.with_name(f".{path.name}.{os.getpid()}.{next(_numbers)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_text(json.dumps({"answer": text}), encoding="utf-8")
                os.replace(aside, path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise
        except OSError as error:
            return "disk_full" if error.errno in _FULL else "unwritable"
        return None
