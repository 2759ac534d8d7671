# `make` builds .venv; every other target builds it first if need be.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
OUT ?= out
UV := $(shell command -v uv 2>/dev/null)
# As many test processes as cores, as far as memory allows (tests/conftest.py); WORKERS=1 for one.
WORKERS ?= auto
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist worksteal

.PHONY: all demo quick test test-all bench lint docs clean
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

# A minute before each commit: something of every room.
quick: $(STAMP)
	JAX_ENABLE_X64=1 $(PYTEST) -m quick

# Both precisions; what is heavy runs in the one it is for (markers float64 and float32).
test: $(STAMP)
	JAX_ENABLE_X64=1 $(PYTEST) -m "not slow"
	JAX_ENABLE_X64=0 $(PYTEST) -m "not slow"

# Everything, compiled as users compile it.
test-all: export NLBOUND_TEST_XLA = default
test-all: $(STAMP)
	JAX_ENABLE_X64=1 $(PYTEST)
	JAX_ENABLE_X64=0 $(PYTEST)

# PyTorch from PyPI is the build with CUDA, gigabytes; another one installed before is kept.
bench: $(STAMP)
	$(PY) -m pip install --quiet --group bench || uv pip install --python $(PY) --group bench
	$(PY) -m pytest -c benchmarks/pytest.ini -m "not slow" benchmarks

lint: $(STAMP)
	$(PY) -m pip install --quiet --group dev || uv pip install --python $(PY) --group dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

# docs/api.md, from the docstrings.
docs: $(STAMP)
	$(PY) docs/make_api.py

clean:
	rm -rf $(VENV) out
