# Two commands on a bare machine: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help demo test test-runtime test-servers test-making check docs site wheel setup clean
.DEFAULT_GOAL := help

help: ## Say what can be made.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

setup: $(READY) ## Make .venv with the package and all that its tests need.

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fgdeploy is developed on Python >= 3.11; this is " + sys.version.split()[0] + "; try make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[cpu,search,heif,camera,serve,milvus,postgres,ray,triton,sign,hub,report,calibrate,tensorrt-rtx,train,dev,servers]'
	@touch $@

demo: $(READY) ## Run the whole way on generated images: export, hash, index, search, evaluate, parity.
	$(PY) -m fgdeploy demo

# Trainings have a process of their own since one process crashed in them: OpenVINO's CPU plugin (2024.6 to
# 2026.4.1, Linux) had left a freed signal stack behind, on which the next SIGCHLD (torch's DataLoader handles
# it) was a segmentation fault. engines/ov_core.py loads the plugin in a thread that ends; more: docs/decisions.md.
# Side by side, as one pytest keeps one core busy, and those with servers mostly wait for them.
test: $(READY) ## Run every test.
	@$(MAKE) --no-print-directory --jobs=3 test-runtime test-making test-servers

MAKING := calibration engines export models
SERVERS := $(addprefix fgdeploy/,hub remote serve spread)

test-runtime: $(READY)
	$(PY) -m pytest $(addprefix --ignore=tests/,$(MAKING) $(SERVERS) training)

test-servers: $(READY)
	$(PY) -m pytest $(addprefix tests/,$(SERVERS))

test-making: $(READY)
	$(PY) -m pytest $(addprefix tests/,$(MAKING))
	$(PY) -m pytest tests/training

check: $(READY) ## Lint, format check and types.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy examples

docs: $(READY) ## Write docs/cli.md from the commands.
	PYTHONPATH=. $(PY) docs/make_cli.py

site: $(READY) ## Build the documentation's site into site/, every link checked.
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

wheel: $(READY) ## Build wheel and sdist, and check what is in them.
	rm -rf dist build
	$(PY) -m build --outdir dist .
	$(PY) .ci/check_dist.py dist

clean: ## Remove everything that make made.
	rm -rf $(VENV) build dist demo site *.egg-info
