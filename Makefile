# make setup   a virtual environment in .venv with the versions of constraints.txt
# make demo    lint, plan, train the shipped policy on two processes, show what changed
# make test    all tests
# make sglang  SGLang in a virtual environment of its own, .venv-sglang (make test does it by itself)
# make browser Chromium, which the tests of pages drive (make test does it by itself)
# make lint    ruff and mypy
# make docs    the documentation as a site: open site/index.html
# make vscode  the VS Code extension as tools/vscode/trace-dsl.vsix (needs Node 20)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs
STAMP := $(VENV)/.installed
SGLANG := .venv-sglang
SGLANG_STAMP := $(SGLANG)/.installed
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup sglang browser demo test lint docs vscode clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $(STAMP)

sglang: $(SGLANG_STAMP)

# --no-deps: SGLang asks for CUDA kernels that no CPU needs; the file names all that it imports, at exact versions.
$(SGLANG_STAMP): constraints-sglang.txt
	$(PYTHON) -m venv --clear $(SGLANG)
	$(SGLANG)/bin/pip install --quiet --no-deps --requirement constraints-sglang.txt
	touch $(SGLANG_STAMP)

# Where there is none and it cannot be installed, the tests of pages are skipped and say so.
browser:
	@if command -v chromium > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then apt-get install -y -qq chromium > /dev/null || \
	  echo "apt-get could not install chromium: the tests of pages are skipped" >&2; \
	else echo "there is no chromium on the PATH, as apt-get install chromium gives it: the tests of pages are skipped" >&2; fi

demo: setup
	$(BIN)/trace-dsl lint specs/demo/trace.trace --run specs/demo/run.yaml
	$(BIN)/trace-dsl plan specs/demo/trace.trace --run specs/demo/run.yaml
	$(BIN)/trace-dsl train specs/demo/run.yaml --overwrite output=$(RUNS)
	$(BIN)/trace-dsl summary $(RUNS)/demo

# Tests that start processes of their own come second, two files at a time; both halves run, whatever the first says.
SECOND := distributed or sglang
test: setup sglang browser
	status=0; \
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup -m "not ($(SECOND))" || status=$$?; \
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "$(SECOND)" || status=$$?; \
	exit $$status

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy trace_dsl
	$(BIN)/trace-dsl fmt --check specs
	$(BIN)/trace-dsl lint specs

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

vscode: setup
	$(BIN)/python tools/make_textmate_grammar.py
	cd tools/vscode && npm ci --ignore-scripts && PATH="$(abspath $(BIN)):$$PATH" npm test && npm run package

clean:
	rm -rf $(VENV) $(SGLANG) build dist site *.egg-info tools/vscode/node_modules tools/vscode/*.vsix
