#!/bin/sh
# Runs one target with a stable compiler: coverage through the compiler's own pass, without sanitizers.
#   fuzz/run.sh TARGET [SECONDS]
set -eu
cd "$(dirname "$0")"
export RUSTFLAGS="--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
-C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
-C llvm-args=-sanitizer-coverage-trace-compares"
target=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$target" --bin "$1"
mkdir -p "corpus/$1"
exec "target/$target/release/$1" "corpus/$1" -max_total_time="${2:-600}" -max_len=65536 -rss_limit_mb=2048 -timeout=20
