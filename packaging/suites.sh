#!/usr/bin/env bash
# Passes on what `cargo test` prints and ends with a table of what each suite took.
# usage: cargo test … 2>&1 | suites.sh
set -euo pipefail

suite=build begin=$EPOCHREALTIME
table=()

# Adds a row for the suite that has just ended.
row() {
    local now=$EPOCHREALTIME
    local tenths=$(((${now/[.,]/} - ${begin/[.,]/}) / 100000))
    table+=("$(printf '%7d.%d  %s' $((tenths / 10)) $((tenths % 10)) "$suite")")
    begin=$now
}

while IFS= read -r line; do
    printf '%s\n' "$line"
    # "Running unittests src/lib.rs (target/debug/deps/agent-0123456789abcdef)"
    if [[ $line =~ ^\ +Running\ (unittests\ )?([^ ]+)\ \((.*)\)$ ]]; then
        row
        binary=${BASH_REMATCH[3]##*/}
        suite="${binary%-*}${BASH_REMATCH[1]:+, beside the code}"
    elif [[ $line =~ ^\ +Doc-tests\ (.*)$ ]]; then
        row
        suite="${BASH_REMATCH[1]}, in its documentation"
    fi
done
row
echo
echo "seconds    suite"
printf '%s\n' "${table[@]}" | sort -rn
