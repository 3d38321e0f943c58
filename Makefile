# make run      start Mosaique here, with everything it needs
# make test     the same set-up, then the test suite
# make bench    figures beside those of peers, measured in the same run
# make fuzz     parsers of strangers' bytes under atheris, a minute each (FUZZ_SECONDS=60)
# make lint     style, types, architecture
# make install  only install; afterwards .venv/bin/mosaique is the command

PYTHON ?= python3
VENV := .venv
FUZZ_SECONDS ?= 60
BIN := $(VENV)/bin

.PHONY: run install dev test bench fuzz lint format clean

run: install
	@$(BIN)/mosaique serve

install: $(VENV)/.installed

dev: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# setuptools is pinned and installed first, so that the build needs no isolated environment of its own;
# setuptools-scm too where bagit is built, which without it would call itself 0.0.0.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools-scm
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

test: dev
	$(BIN)/python -m tests.peers.install
	$(BIN)/python -m pytest

bench: dev
	$(BIN)/python -m tests.peers.install
	$(BIN)/python -m tests.bench

fuzz: dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]' --no-build-isolation
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) var build *.egg-info
