#!/usr/bin/env bash
# Prints every figure of docs/BENCHMARKS.md, each beside its floor or peer of
# the same run. Takes several minutes; nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
# One build with one set of features for all of them.
benches=(cluster api_memory service_sync apiserver store scheduler)
cargo bench --locked --workspace "${benches[@]/#/--bench=}" --no-run
echo "# $(date --utc +%Y-%m-%d), $(nproc) cores, Linux $(uname -r), $(containerd --version | cut -d' ' -f3), $(nft --version | cut -d' ' -f2)"
for bench in "${benches[@]}"; do
    echo "## $bench"
    cargo bench --quiet --locked --workspace --bench "$bench"
done
