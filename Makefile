# Every target sets up .venv by itself; all it needs is a Python of at least 3.11 and a package index.
#   make quickstart   train, evaluate and plot a small Transformer in runs/quickstart
#   make language     train, evaluate and show a toy language model in runs/text-toy
#   make test         the tests
#   make test-slow    the slow tests
#   make test-accelerators    whole programs compiled for GPUs and TPUs that are not there, in an environment of its own
#   make theory       the statements of the theory, checked on the code that trains
#   make lint         ruff and pyright
#   make docs         the site, in site/: open site/index.html
#   make clean        remove .venv, .venv-aot and site
# PYTHON=python3.12 chooses the interpreter; LOCK= installs the newest versions instead of the locked ones.

PYTHON ?= python3
LOCK ?= requirements.lock
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
CONSTRAINTS := $(if $(LOCK),-c $(LOCK))
SOURCES := $(shell find rmft_jax -name '*.py' -o -name '*.pyi' -o -name '*.npz' -o -name '*.js' -o -name '*.css' -o -name py.typed) README.md LICENSE

.PHONY: quickstart language test test-slow test-accelerators theory lint docs clean

quickstart: .venv/.package
	$(BIN)/rmft train quickstart --out runs/quickstart --resume

language: .venv/.language .venv/.package
	$(BIN)/rmft train text-toy --out runs/text-toy --resume
	$(BIN)/rmft evaluate runs/text-toy --contexts held-out
	$(BIN)/rmft show runs/text-toy

test: .venv/.test .venv/.package
	$(BIN)/pytest

test-slow: .venv/.test .venv/.browser .venv/.package
	$(BIN)/pytest -m slow

# One process: the compilers of both kinds of device work on all cores.
test-accelerators: .venv-aot/.package
	JAX_PLATFORMS=cpu .venv-aot/bin/pytest -m aot -n 0 tests/test_aot.py

theory: .venv/.package
	$(BIN)/python -m theory.check

lint: .venv/.dev .venv/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Strict: a link to nothing, or a public name without an entry, is an error.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf .venv .venv-aot site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "got $$($(PYTHON) --version), need Python 3.11 or newer; try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml $(LOCK)
	$(PIP) install $(CONSTRAINTS) hatchling .
	@touch $@

.venv/.test: .venv/.run
	$(PIP) install $(CONSTRAINTS) '.[test]'
	@touch $@

.venv/.browser: .venv/.run
	$(PIP) install $(CONSTRAINTS) '.[browser]'
	@touch $@

.venv/.language: .venv/.run
	$(PIP) install $(CONSTRAINTS) '.[language]'
	@touch $@

.venv/.docs: .venv/.run
	$(PIP) install $(CONSTRAINTS) '.[docs]'
	@touch $@

.venv/.dev: .venv/.run
	$(PIP) install $(CONSTRAINTS) '.[dev]'
	@touch $@

# The package is installed, not linked: what runs and is tested is what a user gets.
.venv/.package: .venv/.run $(SOURCES)
	$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# Apart from .venv: without a driver the plugins of GPUs and TPUs warn whenever JAX starts.
.venv-aot/.test: .venv/bin/python pyproject.toml $(LOCK)
	.venv/bin/python -m venv .venv-aot
	.venv-aot/bin/python -m pip --disable-pip-version-check -q install $(CONSTRAINTS) hatchling '.[test,aot]'
	@touch $@

.venv-aot/.package: .venv-aot/.test $(SOURCES)
	.venv-aot/bin/python -m pip --disable-pip-version-check -q install --no-deps --no-build-isolation --force-reinstall .
	@touch $@
