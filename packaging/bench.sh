#!/usr/bin/env bash
# Prints every figure of docs/BENCHMARKS.md, each beside its floor or peer of
# the same run. Takes several minutes; nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "# $(date --utc +%Y-%m-%d), $(nproc) cores, Linux $(uname -r), $(containerd --version | cut -d' ' -f3), $(nft --version | cut -d' ' -f2)"
echo "## node"
cargo bench --quiet --locked --bench cluster
echo "## services"
cargo bench --quiet --locked -p netproxy --bench service_sync
echo "## api and store"
cargo bench --quiet --locked -p controlplane-lite
