#!/bin/sh
# Runs one target with a stable compiler: coverage through the compiler's own pass, without sanitizers.
#   fuzz/run.sh TARGET [SECONDS]
# It begins with seeds/TARGET, where there are some, and goes on with what earlier runs found.
set -eu
cd "$(dirname "$0")"
export RUSTFLAGS="--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
-C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
-C llvm-args=-sanitizer-coverage-trace-compares"
target=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$target" --bin "$1"
mkdir -p "corpus/$1" "artifacts/$1"
seconds=${2:-600}
set -- "$1" "corpus/$1" -artifact_prefix="artifacts/$1/"
[ ! -d "seeds/$1" ] || set -- "$@" "seeds/$1"
program="target/$target/release/$1"
shift
exec "$program" "$@" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=20
