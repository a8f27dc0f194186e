# Everything runs from an environment of its own in .venv, made on first use and made again when the dependencies change:
#   * when $(PYTHON) has torch and timm, .venv borrows all that $(PYTHON) has and downloads only what is missing;
#   * otherwise everything in constraints.txt is downloaded, about 6 GB with the CUDA libraries that torch brings.
# Another interpreter: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: test test-slow test-pythons lint demo golden clean
.DELETE_ON_ERROR:

test: lint
	$(PY) -m pytest

test-slow: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[examples]" -c $(VENV)/constraints.txt
	$(PY) -m pytest -m "slow or not slow"

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m mypy

# One environment per interpreter found.
test-pythons:
	@for version in 3.11 3.12 3.13; do \
	    if python$$version -c "" 2>/dev/null; then \
	        echo "== Python $$version"; $(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	    else echo "== Python $$version not found, skipped"; fi; \
	done

demo: $(READY)
	$(PY) -m benchmarks.demo

# Write the golden files again, on purpose only: a changed golden means a changed format or changed pixels.
golden: $(READY)
	$(PY) -m tests.make_golden_views
	$(PY) -m tests.golden_store
	$(PY) -m tests.golden_packed

$(READY): pyproject.toml constraints.txt
	@if $(PYTHON) -c "import torch, timm" 2>/dev/null; then \
	    echo "Reusing torch and timm of $$($(PYTHON) -c 'import sys; print(sys.executable)')."; \
	    $(PYTHON) -m venv --clear $(VENV) && \
	    $(PYTHON) -c "import sysconfig; paths = sysconfig.get_paths(); print(paths['purelib'], paths['platlib'], sep='\n')" \
	        | sort -u > "$$($(PY) -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")/borrowed.pth" && \
	    grep -vE '^(torch|torchvision|timm|triton)==' constraints.txt > $(VENV)/constraints.txt; \
	else \
	    echo "$(PYTHON) has no torch and timm: making $(VENV), which downloads about 6 GB."; \
	    $(PYTHON) -m venv --clear $(VENV) && cp constraints.txt $(VENV)/constraints.txt; \
	fi
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c $(VENV)/constraints.txt
	@touch $@

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
