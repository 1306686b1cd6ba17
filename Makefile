# Two commands do everything: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Plain torch brings several GB of CUDA packages where no GPU is: take the release that the lock names.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
# The tests compare with these libraries, two of which ask for older versions of what stands here.
PEER := steering-vectors==0.12.2 dictionary-learning==0.1.0 eai-sparsify==1.3.3 natsort==8.4.0 schedulefree==1.4.1 \
	simple-parsing==0.1.9 docstring-parser==0.18.0
# Asks for torchvision, which only its examples use: left out here, as its wheel is made for CUDA.
INFLUENCE := kronfluence==1.0.1 einconv==0.1.0 opt_einsum==3.4.0
# Holds torch and oneDNN to what a processor with AVX2 alone can do.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2

DOCS := .venv-docs
SITE := build/docs

.PHONY: install run test test-slow test-vllm test-lm-eval test-inspect test-everywhere docs lint bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "elicit needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PEER) $(INFLUENCE)
	@touch $@

run: $(STAMP)
	$(BIN)/elicit run --method sae-steer --controls --size auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --jaxtyping-packages=elicit,probes,steering,beartype.beartype
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.compatibility --third
	$(AVX2) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m processor --jaxtyping-packages=elicit,probes,steering,beartype.beartype $$(grep -rl mark.processor tests --include='test_*.py')

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --jaxtyping-packages=elicit,probes,steering,beartype.beartype

# vLLM in an environment of its own; after `make test`, which fetches the real model that it also runs.
test-vllm: $(STAMP)
	PYTHON=$(PYTHON) tests/vllm/install.sh
	for part in test_vllm test_engine; do \
		PYTHONPATH=. .venv-vllm/bin/python -m pytest --confcutdir=tests/vllm --jaxtyping-packages=elicit,probes,steering,beartype.beartype tests/vllm/$$part.py || exit 1; \
	done  # backend and engine add to vLLM's worker, which a process holds once

# lm-eval in an environment of its own, laid over this one.
test-lm-eval: $(STAMP)
	PYTHON=$(PYTHON) tests/lm_eval/install.sh
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-lm-eval/bin/python -m pytest --confcutdir=tests/lm_eval --jaxtyping-packages=elicit,probes,steering,beartype.beartype tests/lm_eval

# Inspect in an environment of its own, laid over this one.
test-inspect: $(STAMP)
	tests/inspect/install.sh
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-inspect/bin/python -m pytest --confcutdir=tests/inspect --jaxtyping-packages=elicit,probes,steering,beartype.beartype tests/inspect

# One bundle, the same texts by every one of them; after the three above, and no part of CI, whose time it would take.
test-everywhere: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --confcutdir=tests/everywhere tests/everywhere

# The documentation site, in $(SITE)/site; its tools in an environment of their own.
docs: $(STAMP) $(DOCS)/.installed
	@mkdir -p $(SITE)
	PYTHONPATH=. $(BIN)/python docs/site/lists.py > $(SITE)/lists.json
	$(DOCS)/bin/python docs/site/stage.py $(SITE)/lists.json $(SITE)/pages
	PYTHONPATH=docs/site $(DOCS)/bin/zensical build --clean --strict > $(SITE)/log 2>&1 || { cat $(SITE)/log; exit 1; }
	@! grep '^griffe:' $(SITE)/log  # a docstring names a parameter that is not there
	$(DOCS)/bin/python docs/site/check.py $(SITE)/site

$(DOCS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS)/requirements.txt
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r $(DOCS)/requirements.txt
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
	$(BIN)/python -m experiments.benchmarks.rl
	$(BIN)/python -m experiments.benchmarks.rl --memory

clean:
	rm -rf $(VENV) .venv-vllm .venv-lm-eval .venv-inspect $(DOCS) build dist *.egg-info
