# Every target works from a clean clone; `make help` lists them. What a target does is in tools/.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run dev test lint format docs bench fuzz soak wheel clean machine

ARGS ?=
VENV := .venv

help: ## this list
	@echo "qanat: make TARGET [ARGS=...]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | awk '{name=$$1; $$1=""; printf "  %-8s%s\n", name, $$0}'

machine:
	@tools/machine

run: machine ## build what changed, and run a relay: ARGS="-l :5000 -r example.com:80"
	@tools/venv $(VENV) any runtime
	@tools/engine $(VENV)
	@exec $(VENV)/bin/qanat relay $(if $(ARGS),$(ARGS),--quick-start)

dev: machine ## the environment for working on qanat: .venv with every tool, the engine
	@tools/venv $(VENV) any runtime dev
	@tools/engine $(VENV)

test: machine ## Rust tests, then Python tests on the built wheel; ARGS="-k name" go to pytest
	@tools/test $(ARGS)

lint: machine ## formatting, lints and types, changing nothing
	@tools/venv $(VENV) any runtime dev
	@tools/lint

format: machine ## format both languages and apply the safe fixes
	@tools/venv $(VENV) any runtime dev
	@cargo fmt --all
	@$(VENV)/bin/ruff check --quiet --fix . || true
	@$(VENV)/bin/ruff format --quiet .

bench: machine ## measure us and others side by side, writing docs/performance.md
	@tools/venv $(VENV) any runtime dev
	@tools/venv .venv-peers 3.13 peers
	@tools/engine $(VENV) wheel
	@$(VENV)/bin/python -m benchmarks $(ARGS)

fuzz: machine ## fuzz everything that reads bytes, 60 s each, or ARGS=SECONDS
	@tools/venv $(VENV) any runtime dev
	@tools/engine $(VENV)
	@tools/fuzz $(or $(ARGS),60)

soak: machine ## ten minutes each of load with random faults, or ARGS=SECONDS; nothing may leak
	@tools/venv $(VENV) any runtime dev
	@tools/engine $(VENV)
	@QANAT_SOAK_SECONDS=$(or $(ARGS),600) $(VENV)/bin/python -m pytest -q -s --timeout 0 tests/e2e/test_soak.py tests/e2e/test_proxy_soak.py

wheel: machine ## a release wheel with link-time optimisation, in dist/
	@tools/venv $(VENV) any runtime dev
	@$(VENV)/bin/maturin build --profile wheel --locked --out dist

clean: ## remove what was built and the environments
	rm -rf target dist .venv .venv-3.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f src/qanat/_engine*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
