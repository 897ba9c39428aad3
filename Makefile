# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean
.DEFAULT_GOAL := demo

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/.installed   ## generated videos to a trained, evaluated model; a report in demo/
	$(BIN)/python launch/demo.py

test: .venv/.installed   ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.installed   ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo
