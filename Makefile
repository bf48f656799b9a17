# On a fresh machine git, make and Python 3.11 or newer are enough.
#   make demo    environment, installation, and the tour: writes demo/index.html
#   make test    environment, installation, and the whole test suite
#   make check   format, lint and types
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help install demo test check format clean

help:
	@sed -n '2,4s/^# *//p' Makefile

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/unireel demo --out demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist demo .pytest_cache .ruff_cache .hypothesis

# The environment is made once and made again only when what it is made from changes.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "unireel: error: Python 3.11 or newer is needed and was not found; install it or run 'make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.installed
	$(PIP) --editable '.[dev,serve,page]'
	@touch $@
