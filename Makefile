VENV ?= .venv
OLDEST ?= .venv-oldest
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test test-inductor test-nightly test-slow test-oldest lint docs bench-compare clean

demo: $(VENV)/installed
	$(BIN)/python -m metalearn demo

test: $(VENV)/installed
	$(BIN)/pytest -n 2 -m "not inductor and not slow"

test-inductor: $(VENV)/installed
	$(BIN)/pytest -n 2 -m inductor

test-slow: $(VENV)/installed
	$(BIN)/pytest -m slow

# The lowest versions that pyproject.toml admits, which what they need deprecates; `make test` takes the newest.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/pytest -n 2 -m "not inductor and not slow" -W ignore::DeprecationWarning

test-nightly: $(VENV)/installed
	$(BIN)/pytest -n 2 tests/properties --hypothesis-profile=nightly

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The working tree beside a commit, the last one without BASE=.
bench-compare: BASE := HEAD
bench-compare: $(VENV)/installed
	$(BIN)/python -m benchmarks.compare '$(BASE)'

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[docs]'
	touch $@

$(OLDEST)/installed: RESOLUTION := lowest-direct
$(VENV)/installed: RESOLUTION := highest

%/installed: pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	$*/bin/uv pip install --quiet --python $*/bin/python --resolution $(RESOLUTION) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) dist runs site .mypy_cache .ruff_cache .hypothesis
