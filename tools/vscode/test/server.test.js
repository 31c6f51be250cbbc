// The server that the extension starts, spoken to by the protocol library that VS Code uses.
"use strict";

const assert = require("node:assert");
const { spawn, spawnSync } = require("node:child_process");
const { test } = require("node:test");
const { createProtocolConnection, StreamMessageReader, StreamMessageWriter } = require("vscode-languageserver-protocol/node");

const installed = spawnSync("trace-dsl", ["--version"]).status === 0;

test("findings, completion and goodbye", { skip: !installed && "trace-dsl is not on the path" }, async () => {
  const server = spawn("trace-dsl", ["lsp", "--stdio"], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => server.on("exit", resolve));
  const connection = createProtocolConnection(new StreamMessageReader(server.stdout), new StreamMessageWriter(server.stdin));
  const published = new Promise((resolve) => connection.onNotification("textDocument/publishDiagnostics", resolve));
  connection.listen();

  const { capabilities } = await connection.sendRequest("initialize", { processId: null, rootUri: null, capabilities: {} });
  assert.ok(capabilities.inlayHintProvider);
  await connection.sendNotification("initialized", {});
  const uri = "file:///nowhere/a.trace";
  const textDocument = { uri, languageId: "trace", version: 1, text: "rest: grpo(aneal=cos, per=" };
  await connection.sendNotification("textDocument/didOpen", { textDocument });
  assert.deepStrictEqual((await published).diagnostics.map((one) => one.code), ["syntax"]);
  const where = { textDocument: { uri }, position: { line: 0, character: 26 } };
  const items = await connection.sendRequest("textDocument/completion", where);
  assert.deepStrictEqual(items.map((item) => item.label), ["sequence", "token", "selected", "const"]);
  await connection.sendRequest("shutdown");
  await connection.sendNotification("exit");
  assert.strictEqual(await ended, 0);
  connection.dispose();
});
