# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDIES ?=

.PHONY: help demo test lint types layers fix soak bench serve peers clean

help:
	@echo "make demo [STUDIES=/folder]   studies in by C-STORE, verified discs out, in demo/"
	@echo "make test                     lint, types, layers, all tests (the small campaigns)"
	@echo "make soak                     the campaigns at full size"
	@echo "make bench                    speed against the peers, as ratios"
	@echo "make serve                    the service on loopback, data in ./data"

$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Burnish needs Python 3.11 or newer; say which by: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev,postgres]'
	@touch $@

demo: $(VENV)/.base
	$(BIN)/python -m service.demo $(if $(STUDIES),--studies "$(STUDIES)") --folder demo

serve: $(VENV)/.base
	$(BIN)/burnish serve --data data

peers:
	@sh tests/install_peers.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: peers lint types layers
	$(BIN)/pytest -n 3 --dist worksteal  # for 2 cores: a third of the tests' time is waiting

soak: $(VENV)/.dev peers
	BURNISH_SOAK=full $(BIN)/pytest -n 2 --dist worksteal --timeout=7200 -m "soak or crash or hypothesis" \
		--hypothesis-seed=$${BURNISH_SEED:-20240229} -o tmp_path_retention_policy=failed -rP --show-capture=stdout

bench: $(VENV)/.dev peers
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) demo data build *.egg-info
