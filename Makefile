# Crony. `make help` lists what there is; `make run` is all a newcomer needs.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV ?= .venv
PY   := $(VENV)/bin/python
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: $(VENV)/.run ## everything in one command, with demo jobs; ARGS="--port 9000 --exit-after 60" hands arguments on
	@exec $(PY) -m crony dev --demo $(ARGS)

test: $(VENV)/.dev services ## everything: linters, types, import layers, all tests (what CI runs)
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --config setup.cfg --no-cache
	cd sdk && $(abspath $(VENV))/bin/lint-imports --config setup.cfg --no-cache
	@rm -f .pytest_cache/v/cache/lastfailed
	$(PY) -m pytest -n 4 --dist worksteal || { [ $$? = 1 ] && $(PY) -m tests.second_chance; }

test-fast: $(VENV)/.dev ## unit tests and models, in under a minute
	$(PY) -m pytest -q -n 2 --dist worksteal tests/unit tests/model

test-mysql: $(VENV)/.dev ## the store against a real MySQL server (Debian sid's, in a folder; as root)
	sh tests/mysql/run.sh

soak-transport: $(VENV)/.dev ## a random search for broken promises of the transport: ten minutes, or ARGS="--seconds 3600 --seed 7"
	$(PY) -m tests.property --seconds 600 $(ARGS)

soak: $(VENV)/.dev services ## everything breaks at random, every promise judged: twenty minutes, or ARGS="--seconds 180 --seed 7"
	$(PY) -m tests.soak --seconds 1200 $(ARGS)

test-etcd: $(VENV)/.dev services ## client and transport on every etcd release that can be had here (on Debian: newer suites' too)
	$(PY) -m tests.outsider.etcd_versions $(ARGS)

bench: $(VENV)/.dev ## the benchmarks: a table, and a last line of JSON
	$(PY) -m pip install --quiet redis celery-redbeat
	$(PY) -m benchmarks $(ARGS)

bench-transport: $(VENV)/.dev ## the transport against Redis and RabbitMQ; ARGS="--rounds 3 --only consume,publish"
	$(PY) -m pip install --quiet redis
	$(PY) -m benchmarks.transport $(ARGS)

docs: $(VENV)/.dev ## write the generated reference pages anew
	$(PY) docs/generate.py

proto: $(VENV)/.dev ## write the code of the gRPC contract anew
	cd proto && for to in $(CURDIR)/crony/workers/rpc $(CURDIR)/sdk/crony_sdk; do \
		$(abspath $(PY)) -m grpc_tools.protoc -I. --python_out=$$to --pyi_out=$$to crony/v1/callback.proto \
		&& mv $$to/crony/v1/callback_pb2.* $$to && rm -r $$to/crony || exit 1; done

clean: ## remove what was built and what `crony dev` kept (asks `crony dev` to be stopped first)
	rm -rf $(VENV)/.run $(VENV)/.dev build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .crony

# -- how the environment comes to be; a stamp file says that it is up to date -----------------

$(PY):
	@python=; for try in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$try -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$try; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Crony needs Python 3.11 or newer, and none was found on PATH." >&2; \
	  echo "Install one (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV) >/dev/null 2>&1 || { \
	  rm -rf $(VENV); \
	  $$python -m venv --without-pip $(VENV) && $$python -m pip --python $(PY) install --quiet pip; \
	} || { \
	  rm -rf $(VENV); \
	  echo "The virtual environment could not be made. On Debian: apt-get install python3-venv" >&2; exit 1; \
	}

$(VENV)/.run: setup.cfg pyproject.toml | $(PY)
	@echo "installing Crony into $(VENV) (once)"
	@$(PY) -m pip install --quiet --editable '.[etcd]'
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml sdk/setup.cfg sdk/pyproject.toml | $(PY)
	@echo "installing Crony and its development tools into $(VENV) (once)"
	@$(PY) -m pip install --quiet --editable '.[etcd,dev]' --editable ./sdk
	@touch $@ $(VENV)/.run

# command:Debian package
SERVICES := etcd:etcd-server mariadbd:mariadb-server-core mariadb-install-db:mariadb-server-core mariadb:mariadb-client-core chromium:chromium go:golang-go javac:default-jdk-headless faketime:faketime
FONTS := fonts-noto-cjk

services: ## what the tests need beside Python: installed when root on Debian, else named
	@PATH="$$PATH:/usr/sbin:/sbin"; packages=; \
	for pair in $(SERVICES); do command -v "$${pair%%:*}" >/dev/null 2>&1 || packages="$$packages $${pair##*:}"; done; \
	if [ -z "$$packages" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing$$packages"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends $$packages $(FONTS) >/dev/null && exit 0; \
	fi; \
	echo "The tests use real services, and these are missing (names of Debian packages):$$packages" >&2; \
	echo "Install them (as root, on Debian, make does it by itself), or run \`make test-fast\`, which needs none." >&2; \
	exit 1

.PHONY: help run test test-fast test-mysql test-etcd soak soak-transport bench bench-transport docs proto clean services
