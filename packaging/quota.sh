#!/usr/bin/env bash
# Runs a command with a share of the machine's processors, in a cgroup made for it (v1 or v2).
# usage: quota.sh PERCENT COMMAND...
set -euo pipefail
percent=$1
shift
period=100000
quota=$(($(nproc) * period * percent / 100))
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    group=/sys/fs/cgroup/copepod-test-quota
    grep -qw cpu /sys/fs/cgroup/cgroup.subtree_control || echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p "$group"
    echo "$quota $period" >"$group/cpu.max"
else
    group=$(findmnt --noheadings --output TARGET,OPTIONS --types cgroup |
        awk '$2 ~ /(^|,)cpu(,|$)/ { print $1; exit }')/copepod-test-quota
    mkdir -p "$group"
    echo "$period" >"$group/cpu.cfs_period_us"
    echo "$quota" >"$group/cpu.cfs_quota_us"
fi
# Only who has ended can leave it empty: tests end what they start.
trap 'rmdir "$group"' EXIT
(
    echo "$BASHPID" >"$group/cgroup.procs"
    exec "$@"
)
