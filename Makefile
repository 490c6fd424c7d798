# make demo        set up, build the data, train, evaluate, draw, print the table
# make demo-seeds  the long version: the whole network, twice the iterations,
#                  five seeds, and a row with as many captioned images as CLIM
# make demo-base   train the detector that the demo starts from once more
# make test        set up, then the tests
# make test-gpu    what can be tested on a GPU alone
# make test-onedl  the fast tests with the onedl forks of mmengine, mmcv and
#                  mmdet, in an environment of their own, ONEDL_VENV
# make docs        the documentation, in docs/_build/html
# make lint        the style of the code, its types, and that it is documented
# make setup       only the environment
# make constraints see that requirements/ can be installed together (needs uv)
#
# A step of the set-up is a line with its progress and the time left. What pip
# and compilers print is in VENV/.steps/log.txt, whose end is shown where a
# step fails. tools/misc/setup_step.py knows how long each takes.
#
# PYTHON=  the CPython (3.10-3.12) that makes the environment
# TORCH=   the version of torch
# VENV=    where the environment is; empty: use PYTHON's own as it is and
#          install nothing (see "An environment of your own" in README.md)

TORCH ?= 2.13.0
VENV ?= .venv
ONEDL_VENV ?= .venv-onedl
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
	2>/dev/null && echo $$python && break; done)
MMCV := 2.1.0

export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A log is begun anew by each run of make.
MAKE_RUN ?= $(shell date +%Y-%m-%dT%H:%M:%S)-$(shell echo $$PPID)
export MAKE_RUN := $(MAKE_RUN)

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo demo-seeds demo-base test test-gpu test-onedl docs lint format clean \
	constraints

ifeq ($(strip $(VENV)),)
ENV_PYTHON := $(PYTHON)
READY :=
else
# make takes a space for the end of a file's name.
ifneq ($(words $(VENV)) $(words $(abspath $(VENV))),1 1)
$(error $(if $(filter 1,$(words $(VENV))),$(abspath $(VENV)),$(VENV)): expected a path without spaces; give one, \
	as VENV=/path/of/the/environment)
endif
ENV_PYTHON := $(abspath $(VENV))/bin/python
STAMPS := $(abspath $(VENV))/.steps
ifneq ($(shell [ -e $(STAMPS)/venv -a ! -x $(ENV_PYTHON) ] && echo gone),)
$(error $(ENV_PYTHON): expected a Python, which was removed or moved; remove \
	$(VENV), and the same command makes it again)
endif
BUILD := $(abspath $(VENV))/.build
WITH_TORCH := $(STAMPS)/torch-$(TORCH)
READY := $(STAMPS)/package
WITH_DOCS := $(STAMPS)/docs
endif
# Isolated: pip is not to see the traces of a build in this folder.
PIP := $(ENV_PYTHON) -I -m pip
PIP_INSTALL := $(PIP) install -c requirements/constraints.txt

# Operators that were built without CUDA can not be called on a GPU.
CPU_ONLY := $(BUILD)/torch-$(TORCH)/cpu-only
HIDE_GPU = $$([ -e '$(CPU_ONLY)' ] && echo env CUDA_VISIBLE_DEVICES=)

demo: setup
	@$(HIDE_GPU) $(ENV_PYTHON) tools/demo.py --work-dir work_dirs/demo

demo-seeds: setup
	@$(HIDE_GPU) $(ENV_PYTHON) tools/demo.py --long --seeds 0 1 2 3 4 \
		--work-dir work_dirs/demo_seeds

demo-base: setup
	@$(HIDE_GPU) $(ENV_PYTHON) tools/demo.py --base --work-dir work_dirs/demo_base

# pytest alone lists the warnings, nearly all of which are of other packages.
test: setup
	@$(ENV_PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		--disable-warnings

test-gpu: setup
	@MMDET_CLIM_TEST_GPU=1 $(ENV_PYTHON) -m pytest -m gpu --disable-warnings

docs: setup $(WITH_DOCS)
	$(ENV_PYTHON) tools/misc/model_zoo.py
	$(ENV_PYTHON) tools/misc/ablation_table.py
	$(ENV_PYTHON) -m sphinx -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

# No wheels of onedl-mmcv are on PyPI: its operators are compiled.
ONEDL_PYTHON := $(abspath $(ONEDL_VENV))/bin/python
ONEDL_PIP_INSTALL := $(ONEDL_PYTHON) -I -m pip install \
	-c requirements/constraints.txt
ONEDL_MMCV := 2.3.6
ONEDL_STEP = @$(PYTHON) tools/misc/setup_step.py
ONEDL_LOG := $(abspath $(ONEDL_VENV))/log.txt
FAST_TESTS := tests/test_datasets tests/test_engine tests/test_evaluation \
	tests/test_models tests/test_packaging/test_checkpoint_safety.py \
	tests/test_packaging/test_stack.py tests/test_registry.py \
	tests/test_visualization

test-onedl:
	$(ONEDL_STEP) onedl-venv 'an environment in $(ONEDL_VENV)' $(ONEDL_LOG) -- \
		$(PYTHON) -m venv $(ONEDL_VENV)
	$(ONEDL_STEP) onedl-build-tools 'build tools' $(ONEDL_LOG) -- \
		$(ONEDL_PIP_INSTALL) -r requirements/build.txt
	$(ONEDL_STEP) onedl-requirements 'torch $(TORCH) and requirements' \
		$(ONEDL_LOG) -- $(ONEDL_PIP_INSTALL) torch==$(TORCH) torchvision \
		-r requirements/runtime.txt -r requirements/tests.txt
	$(ONEDL_STEP) onedl-openmmlab 'forks of mmengine and mmdet' \
		$(ONEDL_LOG) -- $(ONEDL_PYTHON) -I -m pip install --no-deps \
		--no-build-isolation -r requirements/onedl.txt
	$(ONEDL_STEP) onedl-mmcv 'fork of mmcv with its operators' $(ONEDL_LOG) -- \
		$(ONEDL_PYTHON) tools/misc/install_mmcv.py $(ONEDL_MMCV) \
		$(abspath $(ONEDL_VENV))/.build --distribution onedl-mmcv
	$(ONEDL_PYTHON) -m pytest $(FAST_TESTS)

lint: setup $(WITH_DOCS)
	$(ENV_PYTHON) -m ruff check .
	$(ENV_PYTHON) -m mypy
	$(ENV_PYTHON) -m interrogate mmdet_clim mmdet_clim_cli
	$(ENV_PYTHON) -m yapf --diff --recursive --parallel \
		mmdet_clim mmdet_clim_cli configs tools benchmarks tests

# What pip will find out on the user's machine, for every Python, in seconds.
constraints:
	@for version in 3.10 3.11.5 3.12; do \
		docs=requirements/docs.txt; \
		if [ $$version = 3.10 ]; then docs=; fi; \
		uv pip compile -q --python-version $$version \
			-c requirements/constraints.txt requirements/build.txt \
			requirements/runtime.txt requirements/tests.txt $$docs >/dev/null; \
		echo "requirements fit Python $$version"; \
	done

format: setup
	$(ENV_PYTHON) -m ruff check --fix .
	$(ENV_PYTHON) -m yapf --in-place --recursive --parallel \
		mmdet_clim mmdet_clim_cli configs tools benchmarks tests

setup: $(READY)
	@$(ENV_PYTHON) tools/misc/gpu_support.py

clean:
	rm -rf build dist mmdet_clim.egg-info

ifneq ($(strip $(VENV)),)

# Each step leaves a stamp when it is done, so an interrupted set-up goes on
# with the step it was in. pip leaves half of a package when it is killed and
# takes it for installed: those halves are dropped first.
LOG := $(STAMPS)/log.txt
STEP = @$(PYTHON) tools/misc/setup_step.py
define begin
	@mkdir -p $(STAMPS)
	@if [ -e $(STAMPS)/unfinished -a -x $(ENV_PYTHON) ]; then \
		$(ENV_PYTHON) tools/misc/drop_unfinished_installs.py; fi
	@touch $(STAMPS)/unfinished
endef
define done
	@touch $@
	@rm -f $(STAMPS)/unfinished
endef

$(STAMPS)/venv:
	@if ! '$(PYTHON)' -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
		2>/dev/null; then \
		echo 'PYTHON=$(PYTHON): expected CPython 3.10-3.12; give its path'; \
		exit 1; fi
	@if [ -x $(ENV_PYTHON) ]; then \
		$(ENV_PYTHON) tools/misc/check_own_environment.py $(PYTHON); fi
	$(begin)
	$(STEP) venv 'an environment in $(VENV)' $(LOG) -- \
		$(PYTHON) -m venv $(VENV)
	$(done)

$(STAMPS)/build-tools: $(STAMPS)/venv requirements/build.txt
	$(begin)
	$(STEP) build-tools 'build tools' $(LOG) -- \
		$(PIP_INSTALL) -r requirements/build.txt
	$(done)

$(WITH_TORCH): $(STAMPS)/build-tools
	$(begin)
	$(STEP) torch 'torch $(TORCH) and its torchvision' $(LOG) -- \
		$(PIP_INSTALL) torch==$(TORCH) torchvision
	@rm -f $(STAMPS)/torch-*
	$(done)

$(STAMPS)/requirements: $(WITH_TORCH) requirements/runtime.txt \
		requirements/tests.txt requirements/constraints.txt
	$(begin)
	$(STEP) requirements 'requirements' $(LOG) -- \
		$(PIP_INSTALL) torch==$(TORCH) -r requirements/runtime.txt \
		-r requirements/tests.txt
	$(done)

$(STAMPS)/openmmlab: $(STAMPS)/requirements requirements/openmmlab.txt
	$(begin)
	$(STEP) openmmlab 'mmengine, mmdet and mim' $(LOG) -- \
		$(PIP_INSTALL) --no-deps -r requirements/openmmlab.txt
	$(done)

# It depends on torch: another version of that needs another build.
$(STAMPS)/mmcv: $(STAMPS)/openmmlab
	$(begin)
	$(STEP) mmcv 'mmcv $(MMCV) with its operators' $(LOG) -- \
		$(ENV_PYTHON) tools/misc/install_mmcv.py $(MMCV) \
		$(BUILD)/torch-$(TORCH)
	$(done)

PACKAGE_FILES := $(shell git ls-files mmdet_clim mmdet_clim_cli configs tools 2>/dev/null) \
	setup.cfg pyproject.toml model-index.yml
# Not editable: mim and `pkg::` configs do not find an editable install.
$(STAMPS)/package: $(STAMPS)/mmcv $(wildcard $(PACKAGE_FILES))
	$(begin)
	$(STEP) package 'mmdet_clim' $(LOG) -- $(PIP) install --no-deps \
		--no-build-isolation --force-reinstall .
	@rm -rf build mmdet_clim.egg-info
	$(done)

$(STAMPS)/docs: $(STAMPS)/package requirements/docs.txt
	$(begin)
	$(STEP) docs 'what builds the documentation' $(LOG) -- \
		$(PIP_INSTALL) -r requirements/docs.txt
	$(done)

endif
