// Starts `trace-dsl lsp` for .trace files. Everything about the language is the server's; here is what starts it.
"use strict";

const vscode = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");

const SECTION = "trace-dsl";

/** @type {LanguageClient | undefined} */
let client;

/** The command to start, with the workspace's folder put in. */
function command() {
  const folder = vscode.workspace.workspaceFolders?.[0]?.uri.fsPath ?? "";
  const written = vscode.workspace.getConfiguration(SECTION).get("command", "trace-dsl").trim() || "trace-dsl";
  return written.replaceAll("${workspaceFolder}", folder);
}

async function start() {
  const settings = vscode.workspace.getConfiguration(SECTION);
  const executable = { command: command(), args: ["lsp"], transport: TransportKind.stdio };
  client = new LanguageClient(SECTION, "trace-dsl", executable, {
    documentSelector: [{ language: "trace" }],
    synchronize: { configurationSection: SECTION },
    initializationOptions: {
      runFile: settings.get("runFile", ""),
      documentation: settings.get("documentation", ""),
    },
  });
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    const asked = await vscode.window.showErrorMessage(
      `\`${executable.command} lsp\` did not start (${error.message ?? error}). ` +
        "Install it with: pip install 'trace-dsl[lsp]', or say in the settings where it is.",
      "Open settings",
    );
    if (asked) {
      await vscode.commands.executeCommand("workbench.action.openSettings", `${SECTION}.command`);
    }
  }
}

async function stop() {
  const running = client;
  client = undefined;
  await running?.stop();
}

async function restart() {
  await stop();
  await start();
}

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("trace-dsl.restart", restart),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration(`${SECTION}.command`)) {
        return restart();
      }
    }),
  );
  await start();
}

module.exports = { activate, deactivate: stop };
