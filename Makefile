# The same commands locally and in CI. Nothing here calls a system package manager.
#   make install   .venv with everything          make test   what .ci/run runs
#   make up        data, train, export, serve      make clean  forget what was made

# The first Python that is supported; override with make install PYTHON=/path/to/python3.11.
PYTHON ?= $(shell for p in python3 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	&& echo $$p && exit; done; echo python3)
PORT ?= 3000
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install up test test-faults lint bench-graph bench-triton bench-gpu constraints configs clean
.DEFAULT_GOAL := install

install: $(STAMP)

# The doctor speaks first, in a plain Python: an unsupported machine is refused before
# anything is downloaded. The stamp comes last, so an interrupted install starts again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 8) or sys.exit( \
		"recserve: Python %d.%d is too old. Install Python 3.11." % sys.version_info[:2])'
	@$(PYTHON) -m serving.doctor
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (about 2 GB, a minute or more) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[train,triton,dev]'
	$(BIN)/python -m pip check
	@touch $@

# exec: make's signals reach recserve itself, which ends everything it started.
up: install
	@exec $(BIN)/recserve up --port $(PORT)

test: lint
	$(BIN)/pytest

# What make test does a few times, hundreds of times: kills, promotions under load.
test-faults: install
	$(BIN)/pytest -m faults --timeout 3600

# The exported graph alone in ONNX Runtime; REPOSITORY holds a release (default: make up's).
REPOSITORY ?= model_repository
bench-graph: install
	$(BIN)/python benchmarks/graph.py $(REPOSITORY)

# Triton against ONNX Runtime alone, and with dynamic batching against without.
bench-triton: install
	$(BIN)/python benchmarks/triton_rates.py $(REPOSITORY)

# On a machine with a CUDA GPU: writes docs/benchmarks-gpu.md. DATA: train on it, too.
bench-gpu: install
	$(BIN)/python benchmarks/gpu.py --repository $(REPOSITORY) $(if $(DATA),--data $(DATA))

lint: install
	@echo "make test needs no system packages beyond those of make install."
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Anew from a fresh environment; local builds (+cpu) lose their label, so that the pins
# hold on any index.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --disable-pip-version-check '.[train,triton,dev]'
	{ sed -n '/^#/p' constraints.txt; \
	  build/constraints/bin/python -m pip freeze --exclude recserve | sed 's/+cpu$$//'; \
	} > build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build/constraints
	$(BIN)/python -m bento.lock > bento/requirements.txt

# The committed configs of model_repository/, from the code.
configs: install
	$(BIN)/python -m export.committed

clean:
	rm -rf .venv .recserve .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
