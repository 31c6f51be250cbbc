"""A real `trace-dsl lsp`, spoken to over its standard input and output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.language import TRACE
from tests.lsp.client import PATIENCE, ROOT, Editor

EMOJI = """\
teacher big = model("\N{GRINNING FACE}")  # \N{GRINNING FACE}
rest: fkl(teacher=big, anneal=linear(9), temprature=1)
"""
EVERYWHERE = {"start": {"line": 0, "character": 0}, "end": {"line": 99, "character": 0}}
UGLY = "key :nll( )\r\nrest:   grpo()\r\n"


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    one = Editor(tmp_path)
    yield one
    one.kill()


def codes(found: list[dict[str, object]]) -> list[object]:
    return [one["code"] for one in found]


def span(line: int, start: int, end: int) -> dict[str, dict[str, int]]:
    return {"start": {"line": line, "character": start}, "end": {"line": line, "character": end}}


def test_a_session_from_hello_to_goodbye(editor: Editor) -> None:
    can = editor.start()
    assert can["positionEncoding"] == "utf-16"
    assert can["textDocumentSync"]["change"] == 1
    for provider in ("hover", "completion", "documentFormatting", "codeAction", "definition", "references", "rename"):
        assert can[f"{provider}Provider"]
    assert can["inlayHintProvider"]
    assert can["documentSymbolProvider"]

    (found,) = editor.open("a.trace", EMOJI)
    assert (found["code"], found["range"]) == ("unknown-argument", span(1, 41, 51))
    assert found["severity"] == 1
    assert "fix: did you mean `temperature`?" in found["message"]

    told = editor.request("textDocument/hover", editor.at("a.trace", 1, 20))
    assert told["contents"]["kind"] == "markdown"
    assert 'model("\N{GRINNING FACE}"' in told["contents"]["value"]
    assert told["range"] == span(1, 18, 21)

    where = editor.request("textDocument/definition", editor.at("a.trace", 1, 20))
    assert where == {"uri": editor.uri("a.trace"), "range": span(0, 8, 11)}

    document = {"textDocument": {"uri": editor.uri("a.trace")}}
    context = {"diagnostics": [found], "only": ["quickfix"]}
    (action,) = editor.request("textDocument/codeAction", {**document, "range": span(1, 42, 42), "context": context})
    assert action["edit"]["changes"] == {editor.uri("a.trace"): [{"range": span(1, 41, 51), "newText": "temperature"}]}

    mended = EMOJI.replace(", temprature=1", "")
    assert editor.change("a.trace", mended) == []
    (hint,) = editor.request("textDocument/inlayHint", {**document, "range": EVERYWHERE})
    assert hint["label"] == "1 -> 0 @ step 9"
    assert hint["position"] == {"line": 1, "character": len("rest: fkl(teacher=big, anneal=linear(9))")}

    symbols = editor.request("textDocument/documentSymbol", document)
    assert [symbol["name"] for symbol in symbols] == ["big", "rest"]
    assert (
        len(
            editor.request(
                "textDocument/references", {**editor.at("a.trace", 1, 20), "context": {"includeDeclaration": True}}
            )
        )
        == 2
    )
    changes = editor.request("textDocument/rename", {**editor.at("a.trace", 1, 20), "newName": "large"})["changes"]
    assert len(changes[editor.uri("a.trace")]) == 2
    refused = editor.answer("textDocument/rename", {**editor.at("a.trace", 1, 20), "newName": "gap"})["error"]
    assert refused["message"] == "'gap' is a word of the language"
    assert editor.stop() == 0


def test_completion_on_a_line_that_does_not_parse(editor: Editor) -> None:
    editor.start()
    (found,) = editor.open("a.trace", "teacher = self(sync=1, sees=\n")
    assert found["code"] == "syntax"
    items = editor.request("textDocument/completion", editor.at("a.trace", 0, 28))
    assert [item["label"] for item in items][:2] == ["nothing", "diagnosis"]
    assert items[0]["textEdit"] == {"range": span(0, 28, 28), "newText": "nothing"}


def test_formatting_keeps_the_line_ends_and_leaves_alone_what_does_not_parse(editor: Editor) -> None:
    editor.start()
    editor.open("a.trace", UGLY)
    ask = {"textDocument": {"uri": editor.uri("a.trace")}, "options": {"tabSize": 4, "insertSpaces": True}}
    (edit,) = editor.request("textDocument/formatting", ask)
    assert edit == {
        "range": {"start": {"line": 0, "character": 0}, "end": {"line": 2, "character": 0}},
        "newText": "key:  nll()\r\nrest: grpo()\r\n",
    }
    editor.change("a.trace", "key :nll(\r\nrest:   grpo()\r\n")
    assert editor.request("textDocument/formatting", ask) == []


@pytest.mark.parametrize("text", ["", ")(", "\ud83d", "key: fkl(\n\n\x00", "\u2028\r\n\r" + "(" * 500, "é" * 9 + "=="])
def test_every_question_about_any_text_has_an_answer(editor: Editor, text: str) -> None:
    editor.start()
    editor.open("a.trace", text)
    document = {"textDocument": {"uri": editor.uri("a.trace")}}
    for line, character in ((0, 0), (0, 3), (1, 10_000), (99, 0)):
        for question in ("hover", "completion", "definition"):
            editor.request(f"textDocument/{question}", editor.at("a.trace", line, character))
        assert "error" in editor.answer(
            "textDocument/rename", {**editor.at("a.trace", line, character), "newName": "x"}
        )
    for question in ("documentSymbol", "formatting", "inlayHint"):
        editor.request(
            f"textDocument/{question}",
            {**document, "range": EVERYWHERE, "options": {"tabSize": 4, "insertSpaces": True}},
        )
    editor.request("textDocument/codeAction", {**document, "range": EVERYWHERE, "context": {"diagnostics": []}})
    assert editor.stop() == 0


def test_garbage_does_not_end_the_server(editor: Editor) -> None:
    editor.start()
    for body in (
        b"{",
        b"[1, 2]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"jsonrpc": "2.0"}',
        b'{"jsonrpc": "1.0", "id": 1}',
    ):
        editor.send_raw(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    editor.send_raw(b"what is this\r\n\r\n")
    editor.notify("textDocument/didOpen", {"nonsense": True})
    editor.notify("no/such/notification", {})
    assert editor.answer("no/such/request", {})["error"]["code"] == -32601
    editor.send({"id": "x", "method": "textDocument/hover", "params": {"position": "nowhere"}})
    assert editor.request("textDocument/hover", editor.at("never_opened.trace", 0, 0)) is None
    assert editor.request("textDocument/completion", editor.at("never_opened.trace", 0, 0)) == []
    assert codes(editor.open("a.trace", "rest: grpo(w=0)\n")) == ["zero-weight"]
    assert editor.stop() == 0


def test_the_server_ends_with_its_editor(editor: Editor) -> None:
    editor.start()
    assert editor.process.stdin is not None
    editor.process.stdin.close()
    assert editor.process.wait(timeout=PATIENCE) in (0, 1)


def test_typing_is_judged_once_it_pauses_and_answered_at_once(editor: Editor) -> None:
    editor.start()
    editor.open("a.trace", "rest: grpo(w=1)\n")
    for text in ("rest: grpo(w=0)\n", "rest: grpo(w=\n", "rest: fkl(\n"):
        document = {"uri": editor.uri("a.trace"), "version": 2}
        editor.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
    items = editor.request("textDocument/completion", editor.at("a.trace", 0, 10))
    assert "topk=" in [item["label"] for item in items]
    seen = [codes(editor.published("a.trace"))]
    while seen[-1] != ["syntax"]:
        seen.append(codes(editor.published("a.trace")))
    assert len(seen) <= 3
    editor.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": "rest: grpo(w=0)"}]})
    editor.notify("textDocument/didClose", {"textDocument": {"uri": editor.uri("a.trace")}})
    while editor.published("a.trace"):
        pass
    assert editor.stop() == 0


def test_closing_a_document_takes_its_findings_back(editor: Editor) -> None:
    editor.start()
    assert codes(editor.open("a.trace", "rest: grpo(w=0)\n")) == ["zero-weight"]
    editor.notify("textDocument/didClose", {"textDocument": {"uri": editor.uri("a.trace")}})
    assert editor.published("a.trace") == []
    assert editor.request("textDocument/hover", editor.at("a.trace", 0, 0)) is None


def test_a_document_that_was_never_saved(editor: Editor) -> None:
    editor.start()
    editor.notify(
        "textDocument/didOpen",
        {
            "textDocument": {
                "uri": "untitled:Untitled-1",
                "languageId": "trace",
                "version": 1,
                "text": "rest: grpo(w=0)",
            }
        },
    )
    params = editor.wait("method", "textDocument/publishDiagnostics")["params"]
    assert (params["uri"], codes(params["diagnostics"])) == ("untitled:Untitled-1", ["zero-weight"])


# ------------------------------------------------------------------------------------------------- settings and files


def test_rules_are_those_of_the_nearest_pyproject_of_each_document(editor: Editor) -> None:
    (editor.folder / "quiet").mkdir()
    settings = editor.folder / "quiet" / "pyproject.toml"
    settings.write_text('[tool.trace-dsl]\nignore = ["zero-weight"]\n', encoding="utf-8")
    editor.start()
    assert codes(editor.open("a.trace", "rest: grpo(w=0)\n")) == ["zero-weight"]
    assert codes(editor.open("quiet/a.trace", "rest: grpo(w=0)\n")) == []
    settings.write_text("[tool.trace-dsl]\npedantc = true\n", encoding="utf-8")
    editor.notify(
        "workspace/didChangeWatchedFiles", {"changes": [{"uri": editor.uri("quiet/pyproject.toml"), "type": 2}]}
    )
    assert codes(editor.published("a.trace")) == ["zero-weight"]
    found = editor.published("quiet/a.trace")
    assert codes(found) == ["zero-weight", "settings"]
    assert "has no setting 'pedantc'; did you mean `pedantic`?" in found[1]["message"]


def test_a_run_file_wakes_the_rules_that_need_it(editor: Editor) -> None:
    shutil.copytree(ROOT / "specs/demo", editor.folder / "demo")
    run = editor.folder / "demo/run.yaml"
    run.write_text(run.read_text(encoding="utf-8").replace("steps: 60", "steps: 20"), encoding="utf-8")
    editor.start({"runFile": "demo/run.yaml"})
    assert "schedule-exceeds-run" in codes(editor.open("demo/trace.trace", TRACE))
    editor.notify("workspace/didChangeConfiguration", {"settings": {"trace-dsl": {"runFile": "", "command": "x"}}})
    assert codes(editor.published("demo/trace.trace")) == []
    editor.wait("method", "workspace/inlayHint/refresh")
    editor.notify(
        "workspace/didChangeConfiguration", {"settings": {"trace-dsl": {"runFile": "gone.yaml", "runfile": 1}}}
    )
    found = editor.published("demo/trace.trace")
    assert codes(found) == ["settings", "settings"]
    assert "has no setting 'runfile'; did you mean `runFile`?" in found[0]["message"]
    assert "gone.yaml: cannot be read" in found[1]["message"]
    editor.notify("workspace/didChangeConfiguration", {"settings": {}})
    editor.notify("workspace/didChangeConfiguration", {"settings": None})
    assert codes(editor.change("demo/trace.trace", TRACE)) == ["settings", "settings"]


def test_a_saved_base_is_read_again_in_what_extends_it(editor: Editor) -> None:
    base = editor.folder / "base.trace"
    base.write_text("rest: grpo()\n", encoding="utf-8")
    editor.start()
    assert editor.open("child.trace", 'extends "base.trace"\nkey: nll()\n') == []
    base.write_text("rest: grpo(w=0)\n", encoding="utf-8")
    editor.notify("textDocument/didSave", {"textDocument": {"uri": editor.uri("child.trace")}})
    (found,) = editor.published("child.trace")
    assert (found["code"], found["range"]) == ("zero-weight", span(0, 8, 20))
    assert found["relatedInformation"][0]["location"]["uri"] == base.as_uri()


# ---------------------------------------------------------------------------------------------------- the command line


def test_the_server_imports_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, atexit\n"
        "from trace_dsl.cli.main import app\n"
        "heavy = {'torch', 'numpy', 'megatron', 'yaml'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "app(['lsp'])\n"
    )
    one = Editor(tmp_path, "-c", program)
    one.start()
    one.open("a.trace", TRACE)
    assert one.stop() == 0
    assert one.process.stderr is not None
    assert one.process.stderr.read().decode().splitlines()[-1] == "[]"
    one.kill()


def test_without_pygls_there_is_the_command_that_installs_it() -> None:
    program = "import sys\nsys.modules['pygls'] = None\nfrom trace_dsl.cli.main import app\napp(['lsp'])\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the language server needs pygls: pip install 'trace-dsl[lsp]'\n"


def test_formatting_what_would_be_too_large_says_so(editor: Editor) -> None:
    editor.start()
    losses = "+".join(["nll(w=step+1,per=token)"] * 7)
    editor.open("a.trace", "".join(f"key when a and b:{losses}\n" for _ in range(1060)))
    ask = {"textDocument": {"uri": editor.uri("a.trace")}, "options": {"tabSize": 4, "insertSpaces": True}}
    error = editor.answer("textDocument/formatting", ask)["error"]
    assert (error["code"], "it would have more than 200,000 bytes" in error["message"]) == (-32803, True)
