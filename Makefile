# Everything installs into .venv of this folder; nothing but Python 3.11+, git and make is needed
# (and Node 20+ with npm for the tests that run a vendor's program; a newer Node comes from PyPI where one is needed).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Without compiled modules each Python process of the tests would compile forkjoin.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(BIN)/python -m pytest -q
# A test of real processes may fail on a machine that is short of time; that is told, never hidden.
define AGAIN
These tests failed beside the others. Each is run once more, alone: one that fails again fails the run, and one that
passes now is flaky, which is a fault to be mended.
endef
export AGAIN

.PHONY: demo test check bench soak adversary clean

demo: $(VENV)/installed  ## watch agents work on a sample repository; AGENT=claude for the real one
	$(BIN)/forkjoin demo --agent $(or $(AGENT),scripted)

test: $(VENV)/installed-test  ## everything that CI runs
	$(MAKE) --jobs 2 check vendors
	$(PYTEST) -n 4 --dist loadgroup || { [ $$? = 1 ] || exit; echo "$$AGAIN"; $(PYTEST) -p no:xdist -rA --last-failed --last-failed-no-failures none; }

check: $(VENV)/installed-test  ## formatting, lint, both type checkers, the layering contract, wording and structure
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m checks.style

.PHONY: vendors
vendors: $(VENV)/installed-test  ## the vendors' real programs, into .cache
	cd tests && ../$(BIN)/python -m support.vendor_programs

bench: $(VENV)/installed-test  ## the figures of docs/performance.md
	$(BIN)/python -m bench

SEEDS ?= soak-1 soak-2
soak: $(VENV)/installed-test vendors  ## the crash test for 2,000 rounds, 1,000 agents, and the tests that last: hours
	printf '%s\n' $(SEEDS) | (cd tests && xargs -P 2 -I SEED ../$(BIN)/python -m crash --rounds 1000 --seed SEED)
	cd tests && ../$(BIN)/python -m soak.test_soak 1000
	$(PYTEST) -n 4 --dist loadgroup -m soak

HISTORIES ?= 150
adversary: $(VENV)/installed-test  ## random hostile agents in odd repositories, HISTORIES for each of SEEDS
	printf '%s\n' $(SEEDS) | (cd tests && xargs -P 2 -I SEED ../$(BIN)/python -m adversary --histories $(HISTORIES) --seed SEED)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("forkjoin needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	touch $@

clean:
	rm -rf $(VENV) .cache build dist
