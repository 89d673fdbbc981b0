# make demo [WEIGHTS=file]   install into .venv, upscale examples/, write the results and a before/after sheet to out/
# make sheets [FOLDER=folder] [MODEL=weights]   contact sheets of a folder of pictures into out/sheets/
# make test [PYTEST_ARGS=..] install into .venv, run the tests
# make lint, make format     what CI checks, and what corrects most of it
#
# PYTHON=... chooses the interpreter that makes .venv; otherwise the first of these that is new enough.
PYTHONS = python3 python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(PYTHONS); do "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && break; done)

BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
FOLDER = examples
MODEL = default
SOURCES := $(shell find src native -type f ! -name '*.pyc' ! -name '*.so') \
           pyproject.toml constraints.txt CMakeLists.txt README.md LICENSE NOTICE

demo: .venv/.installed
	$(BIN)/dacesr upscale examples -o out $(if $(WEIGHTS),-n "$(WEIGHTS)")
	$(BIN)/python examples/sheet.py examples out -o out/sheet.png
	@echo "The upscaled pictures are in out/, the before/after sheet is out/sheet.png."

sheets: .venv/.installed
	$(BIN)/python examples/sheets.py "$(FOLDER)" -n "$(MODEL)" -o out/sheets

test: .venv/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# One stamp per set of extras; pip builds again only when a source is newer.
.venv/.installed: EXTRAS =
.venv/.installed-test: EXTRAS = [test]
.venv/.installed-dev: EXTRAS = [dev]
.venv/.installed .venv/.installed-test .venv/.installed-dev: $(SOURCES) | .venv/bin/pip
	@for cxx in "$$CXX" c++ g++ clang++; do command -v "$$cxx" >/dev/null 2>&1 && exit 0; done; \
	echo "A C++ compiler is missing: install one, as in 'sudo apt-get install g++'." >&2; exit 1
	@echo "Installing dacesr$(EXTRAS) into .venv (minutes the first time)."
	@$(INSTALL) ".$(EXTRAS)"
	@touch $@

HEADERS = import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
.venv/bin/pip:
	@fail() { echo "$$1" >&2; exit 1; }; \
	"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || fail "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is not: \
	install one and name it, as in 'make PYTHON=python3.11'."; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || fail "Python's venv module is missing: \
	install it, as in 'sudo apt-get install python3-venv'."; \
	"$(PYTHON)" -c '$(HEADERS)' || fail "The headers of Python are missing: \
	install them, as in 'sudo apt-get install python3-dev'."
	"$(PYTHON)" -m venv .venv

.PHONY: demo sheets test lint format
