.DEFAULT_GOAL := help
.PHONY: help demo test check bench

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 10

demo:  ## simulate, train, serve, stream, and show what was found
	uv run shoal demo

test:  ## the tests
	uv run pytest

check:  ## exactly what CI runs: format, lint, types, tests
	uv run ruff format --check .
	uv run ruff check .
	uv run mypy
	uv run pytest -n auto --dist loadfile --no-loadscope-reorder

bench:  ## the floors of this machine and our figures as ratios to them
	uv run shoal bench
