# Everything a machine needs is installed from here; see packaging/.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.PHONY: help deps build install up down test test-slow lint bench fuzz runtimes kubectls vm

# How the shipped binary is linked: docs/adr/0010-built-for-size.md. Naming the
# target keeps procedural macros, which cannot be static, out of it.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
build bench: export CARGO_BUILD_TARGET := $(HOST)
build bench: export RUSTFLAGS := -C link-arg=-fuse-ld=lld -C link-arg=-Wl,--icf=all \
	-C target-feature=+crt-static -C relocation-model=static

# Where `build` leaves the program, and where `install` puts it.
COPEPOD := target/$(HOST)/release/copepod
PREFIX ?= /usr/local

# Tests find kubectl on PATH; where the machine has none, the one that `deps` fetched.
test test-slow: export PATH := $(PATH):$(CURDIR)/target/kubectl/1.33

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

deps: ## install what is missing on a fresh Debian 12 or 13
	@packaging/setup.sh

build: deps ## build the release binary
	cargo build --release --locked

install: build ## put copepod on PATH: PREFIX/bin, /usr/local/bin by default
	install -D -m 0755 $(COPEPOD) $(DESTDIR)$(PREFIX)/bin/copepod

up: build ## start a cluster of one node, run the example on it, show it
	@packaging/up.sh $(COPEPOD)

down: ## end the cluster and leave nothing behind
	$(COPEPOD) down

runtimes: deps ## unpack further containerd versions below target/runtimes
	@packaging/runtimes.sh target/runtimes

kubectls: deps ## fetch further kubectl versions into target/kubectl
	@packaging/kubectl.sh target/kubectl 27 30 33

vm: deps ## fetch an emulator, a kernel and systemd for tests on a machine of their own
	@packaging/vm.sh target/vm

lint: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: lint runtimes kubectls vm ## format, lints, unit and integration tests on the real thing
	cargo test --workspace --locked 2>&1 | packaging/suites.sh

# Built with all processors: what is to be slow is what is tested.
test-slow: runtimes kubectls vm ## the same tests with QUOTA percent of the processors, 25 by default
	cargo test --workspace --locked --no-run
	COPEPOD_TEST_TIME_FACTOR=$$((200 / $${QUOTA:-25})) \
		packaging/quota.sh $${QUOTA:-25} cargo test --workspace --locked 2>&1 | packaging/suites.sh

bench: deps ## print the figures of docs/BENCHMARKS.md
	@packaging/bench.sh

fuzz: deps ## run each fuzz target for ten minutes, or for FUZZ_SECONDS
	for target in fuzz/fuzz_targets/*.rs; do fuzz/run.sh $$(basename $$target .rs) $${FUZZ_SECONDS:-600} || exit 1; done
