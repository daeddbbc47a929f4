# Two commands from nothing: `make demo` and `make test`. Each makes its own virtual environment
# in .venv and installs the package with the CPU build of torch; nothing outside is changed.
#
#   make TORCH=cuda demo            the CUDA build of torch from the package index
#   make TORCH="torch==2.8.*" demo  any other build, handed to pip as it stands
#   make PYTHON=python3.12 demo     another Python
#
# `make clean` first when a .venv with another torch or Python is there already.

VENV  ?= .venv
TORCH ?= cpu
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Where the CPU build is looked for when the configured package index has none.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

RUN := $(VENV)/bin/python
# Tests side by side, one thread of torch each: two processes that share cores stand in each other's way.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest
PIP := $(RUN) -m pip --disable-pip-version-check

ifeq ($(TORCH),cpu)
CONSTRAINTS := -c constraints-cpu.txt
endif

.PHONY: demo test test-slow test-oldest lint types docs wheel format clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(RUN) -m xtec.cli demo

test: $(VENV)/installed-test lint types
	$(PYTEST) -n $(JOBS) --dist loadfile -m "not slow" --cov --cov-fail-under=90 $(PYTEST_ARGS)
	$(RUN) -m coverage report --fail-under=100 --include="xtec/coding/*,xtec/codec.py"

test-slow: $(VENV)/installed-test
	$(PYTEST) -m slow $(PYTEST_ARGS)

# The lower bounds of pyproject.toml, on the oldest Python: make PYTHON=python3.11 test-oldest
test-oldest:
	$(MAKE) VENV=$(VENV)-oldest $(VENV)-oldest/torch
	$(VENV)-oldest/bin/python -m pip install -q packaging
	$(VENV)-oldest/bin/python tests/oldest.py > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/python -m pip install $(CONSTRAINTS) -c $(VENV)-oldest/constraints.txt -e ".[test]"
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/installed-test
	$(RUN) -m mypy

# Into site/; nothing in it is fetched from the web. Warnings are errors.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	@! grep -rlE '<(script|link|img)[^>]* (src|href)="?(https?:)?//' site --include=*.html || { echo "these pages fetch from the web" >&2; exit 1; }

# Into dist/: wheel and source archive, checked as tests/wheel.sh says.
wheel: $(VENV)/installed-test
	$(PIP) install -q build twine
	bash tests/wheel.sh $(VENV)

format: $(VENV)/installed-test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) dist site

$(VENV)/created:
	@test -n "$(PYTHON)" || { echo "xtec needs Python 3.11 or newer and found none on PATH; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "xtec needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

# torch alone and first: whatever is installed after it takes it as it is.
$(VENV)/torch: $(VENV)/created constraints-cpu.txt
ifeq ($(TORCH),cpu)
	$(PIP) install $(CONSTRAINTS) torch \
	|| { echo "The configured package index has no CPU build of torch; asking $(TORCH_INDEX)"; \
	$(PIP) --retries 1 --timeout 15 install $(CONSTRAINTS) --extra-index-url $(TORCH_INDEX) torch; } \
	|| { echo "No CPU build of torch for this Python and platform (constraints-cpu.txt). Take the package index's own: make TORCH=torch" >&2; exit 1; }
else ifeq ($(TORCH),cuda)
	$(PIP) install torch==2.13.0
else
	$(PIP) install "$(TORCH)"
endif
	@touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	$(PIP) install $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/torch pyproject.toml
	$(PIP) install $(CONSTRAINTS) -e ".[test]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(VENV)/torch pyproject.toml
	$(PIP) install $(CONSTRAINTS) -e ".[docs]"
	@touch $@ $(VENV)/installed
