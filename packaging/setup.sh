#!/usr/bin/env bash
# Installs what copepod needs and this machine lacks. Harmless to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/progress.sh

say() { printf '%s\n' "$*" >&2; }

[ "$(id -u)" -eq 0 ] || { say "setup: run as root"; exit 1; }
command -v apt-get >/dev/null || { say "setup: this script knows Debian's apt-get only; install the packages it names by hand"; exit 1; }
command -v cargo >/dev/null || { say "setup: install Rust first (rustup)"; exit 1; }

# program → Debian package; one line for each thing that is used by name.
declare -A package_of=(
    [containerd]=containerd
    [runc]=runc
    [nft]=nftables
    [protoc]=protobuf-compiler
    [lld]=lld
    [ip]=iproute2
    [conntrack]=conntrack
    [etcd]=etcd-server
    [etcdctl]=etcd-client
    [cc]=gcc
    [make]=make
    [pip3]=python3-pip
    [xz]=xz-utils
    [pgrep]=procps
)
missing=()
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
# Well-known protobuf types and the static C library are files, not programs.
[ -e /usr/include/google/protobuf/empty.proto ] || missing+=(libprotobuf-dev)
[ -e /usr/lib/x86_64-linux-gnu/libc.a ] || [ -e /usr/lib/aarch64-linux-gnu/libc.a ] || missing+=(libc6-dev)

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
}

if [ "${#missing[@]}" -gt 0 ]; then
    step "install ${missing[*]}" install_packages "${missing[@]}"
    # The packages start services of their own; copepod supervises its runtime itself.
    for service in containerd etcd; do
        if command -v systemctl >/dev/null && systemctl is-system-running >/dev/null 2>&1; then
            case " ${missing[*]} " in *" $service"*) systemctl disable --now "$service" >/dev/null 2>&1 || true ;; esac
        fi
    done
fi
if ! command -v kubectl >/dev/null; then
    # For this directory's scripts and tests only: which kubectl is on PATH is the machine owner's choice.
    packaging/kubectl.sh target/kubectl 33
fi
say "setup: complete"
