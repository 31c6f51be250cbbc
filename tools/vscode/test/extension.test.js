// The extension against a stand-in for VS Code: what is started, with which settings, and what a failure says.
"use strict";

const assert = require("node:assert");
const Module = require("node:module");
const { test, beforeEach } = require("node:test");

const settings = {};
const shown = [];
const started = [];
let failure;
let listener;

const vscode = {
  workspace: {
    workspaceFolders: [{ uri: { fsPath: "/project" } }],
    getConfiguration: () => ({ get: (name, otherwise) => settings[name] ?? otherwise }),
    onDidChangeConfiguration: (found) => (listener = found),
  },
  window: { showErrorMessage: async (text) => void shown.push(text) },
  commands: { registerCommand: (name) => ({ name }), executeCommand: async () => {} },
};

class LanguageClient {
  constructor(id, name, executable, options) {
    Object.assign(this, { id, executable, options, stopped: false });
  }
  async start() {
    if (failure) {
      throw failure;
    }
    started.push(this);
  }
  async stop() {
    this.stopped = true;
  }
}

const load = Module._load;
Module._load = (name, ...rest) => {
  if (name === "vscode") {
    return vscode;
  }
  return name === "vscode-languageclient/node" ? { LanguageClient, TransportKind: { stdio: 0 } } : load(name, ...rest);
};
const extension = require("../extension.js");

beforeEach(() => {
  for (const name of Object.keys(settings)) {
    delete settings[name];
  }
  shown.length = started.length = 0;
  failure = undefined;
});

test("the command of the settings is started with its settings", async () => {
  Object.assign(settings, { command: "${workspaceFolder}/.venv/bin/trace-dsl", runFile: "run.yaml" });
  await extension.activate({ subscriptions: [] });
  assert.deepStrictEqual(started[0].executable, { command: "/project/.venv/bin/trace-dsl", args: ["lsp"], transport: 0 });
  assert.deepStrictEqual(started[0].options.initializationOptions, { runFile: "run.yaml", documentation: "" });
  assert.deepStrictEqual(started[0].options.documentSelector, [{ language: "trace" }]);
  await extension.deactivate();
  assert.ok(started[0].stopped);
});

test("another command restarts the server, another setting does not", async () => {
  await extension.activate({ subscriptions: [] });
  await listener({ affectsConfiguration: (name) => name === "trace-dsl.runFile" });
  assert.strictEqual(started.length, 1);
  settings.command = "other";
  await listener({ affectsConfiguration: (name) => name === "trace-dsl.command" });
  assert.ok(started[0].stopped);
  assert.strictEqual(started[1].executable.command, "other");
});

test("a command that is not there says how to install it", async () => {
  failure = new Error("spawn trace-dsl ENOENT");
  await extension.activate({ subscriptions: [] });
  assert.match(shown[0], /`trace-dsl lsp` did not start \(spawn trace-dsl ENOENT\).*pip install 'trace-dsl\[lsp\]'/);
  await extension.deactivate();
});
