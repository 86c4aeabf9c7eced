# vmm-lite: `make demo` and `make test` do everything, including setup. `make help` lists the rest.
# Needs Debian 12 (or an apt-based relative) and rustup's stable; `make setup` installs whatever
# else is missing.

SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help setup build images demo test hosts faults kills soak bench fuzz lint clean

help:
	@echo 'make demo    show live migration: a key-value store moves between two hosts under load'
	@echo 'make test    run every test'
	@echo 'make hosts   run tests on ordinary KVM (AMD-V) in emulation, with and without nested paging, on one and two CPUs (short: .ci/hosts short)'
	@echo 'make faults  make moves fail at every fail point in random order, RUNS=300 times (SEED=n repeats a run)'
	@echo 'make kills   kill hosts, processes, links and arbiters of a protected VM, each RUNS=500 times (SEED=n repeats a run)'
	@echo 'make soak    run all of std-check in one VM, in random order, and then faults of a protected VM, for SECONDS=1800 each'
	@echo 'make bench   measure, side by side with QEMU; results in out/bench'
	@echo 'make fuzz    feed hostile input to every parser, SECONDS=60 each; results in out/fuzz'
	@echo 'make images  build a unikernel image of each application, into target/release/images'
	@echo 'make lint    rustfmt and clippy, hosts and guests'
	@echo 'make setup   install what the project needs (the others do it themselves)'
	@echo 'make clean   remove what was built'

setup:
	@.ci/setup

# One command for the whole workspace: packages built separately would select other features and
# compile twice.
build: setup
	cargo build --release --workspace
	@! grep -q VMM_LITE_FAIL_POINT target/release/vmm-lite || { echo 'error: this vmm-lite has fail points' >&2; exit 1; }

images: build
	@.ci/images release

demo: images
	@target/release/demo $(ARGS)

bench: images
	@target/release/bench $(ARGS)

test: setup
	@.ci/test

hosts: setup
	cargo test --workspace --profile checked --no-run
	@.ci/images checked
	@.ci/hosts long

soak: setup
	@.ci/soak $(SECONDS)

faults: setup
	@.ci/faults $(RUNS) $(SEED)

kills: setup
	@.ci/kills $(RUNS) $(SEED)

fuzz: setup
	@.ci/fuzz $(SECONDS)

lint: setup
	@.ci/lint

clean:
	cargo clean
	rm -rf out
