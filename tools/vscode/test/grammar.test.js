// Tokenizes specs with the engine that VS Code uses, and compares the scopes of words.
"use strict";

const assert = require("node:assert");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { test, before } = require("node:test");
const { loadWASM, OnigScanner, OnigString } = require("vscode-oniguruma");
const { INITIAL, Registry, parseRawGrammar } = require("vscode-textmate");

const GRAMMAR = join(__dirname, "..", "syntaxes", "trace.tmLanguage.json");
const DEMO = join(__dirname, "..", "..", "..", "specs", "demo", "trace_fkl.trace");
let grammar;

before(async () => {
  await loadWASM(readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm")));
  const registry = new Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new OnigScanner(patterns),
      createOnigString: (text) => new OnigString(text),
    }),
    loadGrammar: async () => parseRawGrammar(readFileSync(GRAMMAR, "utf-8"), GRAMMAR),
  });
  grammar = await registry.loadGrammar("source.trace");
});

/** [word, innermost scope] of every word that has one. */
function scopes(text) {
  const found = [];
  let state = INITIAL;
  for (const line of text.split("\n")) {
    const { tokens, ruleStack } = grammar.tokenizeLine(line, state);
    state = ruleStack;
    for (const { startIndex, endIndex, scopes: names } of tokens) {
      const word = line.slice(startIndex, endIndex).trim();
      const scope = names[names.length - 1].replace(/\.trace$/, "");
      if (word && scope !== "source") {
        found.push([word, scope]);
      }
    }
  }
  return found;
}

test("the demo's spec", () => {
  const lines = readFileSync(DEMO, "utf-8").split("\n");
  const [comment, ...others] = [lines[0], ...lines.slice(2, 5), lines[6]];
  assert.deepStrictEqual(scopes(comment), [[comment, "comment.line.number-sign"]]);
  assert.deepStrictEqual(scopes(others.join("\n")), [
    ["spans", "keyword.control.statement"],
    ["cap", "variable.parameter"], ["=", "keyword.operator"], ["25", "constant.numeric"], ["%", "keyword.other.unit"],
    ["cap", "variable.parameter"], ["=", "keyword.operator"], ["25", "constant.numeric"], ["%", "keyword.other.unit"],
    ["teacher", "keyword.control.statement"], ["=", "keyword.operator"], ["self", "support.class"],
    ["sync", "variable.parameter"], ["=", "keyword.operator"], ["10", "constant.numeric"],
    ["sees", "variable.parameter"], ["=", "keyword.operator"], ["diagnosis", "constant.language.word"],
    ["let", "keyword.control.statement"], ["kl", "variable.other.definition"], ["=", "keyword.operator"],
    ["schedule", "support.function"], ["0.5", "constant.numeric"],
    ["warmup", "variable.parameter"], ["=", "keyword.operator"], ["10", "constant.numeric"],
    ["anneal", "variable.parameter"], ["=", "keyword.operator"], ["linear", "constant.language.word"],
    ["30", "constant.numeric"],
    ["key", "entity.name.tag.label"], ["when", "keyword.operator.word"], ["correct", "support.variable.signal"],
    ["fkl", "support.function.loss"], ["w", "variable.parameter"], ["=", "keyword.operator"],
    ["per", "variable.parameter"], ["=", "keyword.operator"], ["sequence", "constant.language.word"],
    ["+", "keyword.operator"],
    ["grpo", "support.function.loss"], ["w", "variable.parameter"], ["=", "keyword.operator"],
    ["1", "constant.numeric"], ["-", "keyword.operator"], ["/", "keyword.operator"], ["0.5", "constant.numeric"],
    ["clip", "variable.parameter"], ["=", "keyword.operator"], ["0.2", "constant.numeric"], ["0.28", "constant.numeric"],
  ]);
});

test("a bracket that is never closed ends where the next statement starts, as the parser has it", () => {
  const found = scopes("key: fkl(w=1,\n  teacher=big,\nlet x = entropy\nrest: entropy()");
  assert.deepStrictEqual(found.filter(([word]) => !["=", ","].includes(word)), [
    ["key", "entity.name.tag.label"], ["fkl", "support.function.loss"], ["w", "variable.parameter"],
    ["1", "constant.numeric"], ["teacher", "variable.parameter"],
    ["let", "keyword.control.statement"], ["x", "variable.other.definition"], ["entropy", "support.variable.signal"],
    ["rest", "keyword.control.rest"], ["entropy", "support.function.loss"],
  ]);
});

test("an ignore comment shows its rules", () => {
  assert.deepStrictEqual(scopes('key | error: none  # trace: ignore[zero-weight] why "x"').slice(0, 6), [
    ["key", "entity.name.tag.label"], ["|", "keyword.operator"], ["error", "entity.name.tag.label"],
    ["none", "constant.language.none"],
    ["# trace: ignore[", "keyword.other.ignore"], ["zero-weight", "entity.name.tag.rule"],
  ]);
});
