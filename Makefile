# Everything runs in .venv, which the first target that needs it makes from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Chosen by hand: published figures depend on them to the last digit.
TORCH := torch==2.14.1 torchvision==0.29.1

.PHONY: demo test lint docs newest constraints clean
.DEFAULT_GOAL := demo

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) hatchling
	$(PIP) --no-build-isolation --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

demo: .venv/.installed   ## generated videos to a trained, evaluated model; a report in demo/
	$(BIN)/python launch/demo.py

test: .venv/.installed-dev   ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

lint: .venv/.installed-dev   ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed-dev   ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

newest:   ## the commands on the newest Python and today's newest releases, without constraints.txt
	$(PYTHON) scripts/check_newest.py

constraints: .venv/.installed   ## today's newest releases into constraints.txt, for each Python that is supported
	$(PIP) uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	    $(addprefix --upgrade-package ,$(TORCH)) --no-emit-index-url --no-annotate --quiet \
	    --custom-compile-command 'make constraints' --output-file constraints.txt

clean:
	rm -rf .venv demo site
