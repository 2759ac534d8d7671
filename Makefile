# `make` builds .venv; every other target builds it first if need be.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
OUT ?= out
UV := $(shell command -v uv 2>/dev/null)

.PHONY: all demo test test-all bench lint clean
all: $(STAMP)

$(STAMP): pyproject.toml
ifneq ($(UV),)
	uv venv --allow-existing $(VENV)
	uv pip install --python $(PY) -e ".[certified]" --group tests
else
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e ".[certified]" --group tests
endif
	touch $@

demo: $(STAMP)
	$(VENV)/bin/nlbound report --out $(OUT)

test: $(STAMP)
	$(PY) -m pytest -n 2 -m "not slow"

test-all: $(STAMP)
	$(PY) -m pytest -n 2

bench: $(STAMP)
	$(PY) -m pip install --quiet --group bench || uv pip install --python $(PY) --group bench
	$(PY) -m pytest benchmarks/bench_*.py -p no:xdist --benchmark-only -s

lint: $(STAMP)
	$(PY) -m pip install --quiet --group dev || uv pip install --python $(PY) --group dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

clean:
	rm -rf $(VENV) out
