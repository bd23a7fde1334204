VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test test-inductor lint clean

demo: $(VENV)/installed
	$(BIN)/python -m metalearn demo

test: $(VENV)/installed
	$(BIN)/pytest -n 2 -m "not inductor"

test-inductor: $(VENV)/installed
	$(BIN)/pytest -n 2 -m inductor

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist runs .mypy_cache .ruff_cache .hypothesis
