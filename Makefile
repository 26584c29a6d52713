# Everything a developer calls. `make` alone lists it. Nothing here needs the network once `.venv` is
# set up; it is set up again when pyproject.toml or a lock file changes.

.DEFAULT_GOAL := help
BIN := .venv/bin
READY := .venv/.ready
LOCKS := $(wildcard uv.lock constraints.txt)
# The first Python that runs and is new enough; `make PYTHON=/path/to/python demo` names another.
# (Asked for its version: a version manager's stand-in exists for Pythons that are not there.)
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)
UV := $(shell command -v uv 2>/dev/null)
# Further words for the program called, as in `make test ARGS='tests/engine -x'`.
ARGS ?=

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(READY) ## make .venv with everything in it (every target does that by itself)

.PHONY: demo
demo: $(READY) ## run a real playbook on real Postgres and NATS, from nothing to rows and back
	@$(BIN)/callboard demo $(ARGS)

.PHONY: up
up: $(READY) ## start everything on this machine; Ctrl-C stops it
	@$(BIN)/callboard up $(ARGS)

.PHONY: test
test: $(READY) ## run the tests
	$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: $(READY) ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: fmt
fmt: $(READY) ## format the code and repair what can be repaired
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: types
types: $(READY) ## check types only
	$(BIN)/mypy $(ARGS)

.PHONY: bench
bench: $(READY) ## measure everything, each figure next to its floor
	$(BIN)/python -m bench $(ARGS)
	$(BIN)/python -m bench.plots

.PHONY: bench-quick
bench-quick: $(READY) ## the same with fewer rounds
	$(BIN)/python -m bench --quick $(ARGS)

.PHONY: bench-peers
bench-peers: $(READY) ## measure DBOS, Celery, Procrastinate and Dramatiq beside us, in the same rounds
	$(BIN)/python -m bench --only W1 --only W2 --only W3 --only W4 --peers $(ARGS)

.PHONY: bench-history
bench-history: $(READY) ## how each figure changed over the results that are kept
	$(BIN)/python -m bench.history $(ARGS)

.PHONY: profile
profile: $(READY) ## say where a step's time goes, hop by hop and function by function
	$(BIN)/python -m bench.profile $(ARGS)

.PHONY: failpoints
failpoints: $(READY) ## crash, fail and linger at every comma of the flow, in every way
	FAILPOINTS=all $(BIN)/python -m pytest tests/failpoints $(ARGS)

# How long a soak or an outage takes.
MINUTES ?= 30

.PHONY: chaos
chaos: $(READY) ## kill everything there is under load, and read from the log that nothing got lost
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: soak
soak: $(READY) ## MINUTES of constant load, and what grew meanwhile
	$(BIN)/python -m tests.chaos soak --minutes $(MINUTES) $(ARGS)

.PHONY: lock
lock: ## write uv.lock and constraints.txt anew (needs uv)
	@test -n "$(UV)" || { echo "error: 'make lock' needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	$(UV) lock
	$(UV) export --frozen --quiet --extra dev --no-emit-project --no-hashes --no-annotate \
		--output-file constraints.txt

.PHONY: clean
clean: ## remove caches and builds, not .venv and not the data in ~/.callboard
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml $(LOCKS)
ifneq ($(and $(UV),$(wildcard uv.lock)),)
	$(UV) sync --frozen --extra dev
else
	@python="$(PYTHON)"; test -n "$$python" || { \
		echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=..." >&2; exit 1; }; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: $$python is too old or does not run; 3.11 or newer is needed" >&2; exit 1; }; \
	test -x $(BIN)/python || $$python -m venv .venv || { rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(wildcard constraints.txt),--constraint constraints.txt) --editable '.[dev]'
endif
	@touch $@
