# vmm-lite: `make demo` and `make test` do everything, set-up included. `make help` lists the rest.
# Needs Debian 12 (or an apt-based relative) and rustup's stable; `make setup` installs what else is missing.

SHELL := /bin/bash
# Tests and demo share one profile: optimised, so that guests are fast, with checks on. One target directory
# means that every crate is compiled once.
PROFILE ?= release
CARGO_FLAGS := $(if $(filter release,$(PROFILE)),--release,)

.DEFAULT_GOAL := help
.PHONY: help setup build images demo test bench lint clean

help:
	@echo 'make demo    show the main job: a key-value store moves between two hosts under load'
	@echo 'make test    run every test'
	@echo 'make bench   measure, side by side with QEMU; results in out/bench'
	@echo 'make images  build a unikernel image of each application'
	@echo 'make lint    rustfmt and clippy, hosts and guests'
	@echo 'make setup   install what the project needs (the others do it themselves)'
	@echo 'make clean   remove what was built'

setup:
	@.ci/setup

build: setup
	cargo build $(CARGO_FLAGS) --workspace

images: build
	@for app in apps/*/; do target/$(PROFILE)/vmm-lite build "$$app" -o "target/$(PROFILE)/images/$$(basename "$$app").img" || exit; done

demo: images
	@cargo run -q $(CARGO_FLAGS) -p vmm-lite-lab --bin demo

test: images
	cargo test $(CARGO_FLAGS) --workspace

bench: images
	@cargo run -q $(CARGO_FLAGS) -p vmm-lite-bench --bin bench

lint: setup
	.ci/lint

clean:
	cargo clean
	rm -rf out
