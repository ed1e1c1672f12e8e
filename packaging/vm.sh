#!/bin/sh
# Fetches what the tests on a machine of its own need: the emulator is
# installed; Debian's cloud kernel, a static busybox and systemd with what it
# needs are only unpacked, never installed.
#
# usage: packaging/vm.sh [DIRECTORY]     (default: target/vm)
#
# DIRECTORY gets `vmlinuz`, `modules/` (the kernel's, not packed), `busybox` and
# `systemd/`, a tree of Debian's files. apt verifies what it downloads.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/progress.sh"

out=${1:-target/vm}
say() { printf '%s\n' "vm: $*" >&2; }
die() { say "$*"; exit 1; }

command -v apt-get >/dev/null || die "apt-get is missing: this needs Debian or a derivative"
command -v dpkg-deb >/dev/null || die "dpkg-deb is missing: this needs Debian or a derivative"
architecture=$(dpkg --print-architecture)
[ "$architecture" = amd64 ] || die "this knows x86_64 only, and not $architecture"

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Another apt may be at work; it is waited for.
update() { apt-get -qq -o DPkg::Lock::Timeout=120 update; }

# unpack DIRECTORY PACKAGE...: downloads and unpacks, nothing more.
unpack() {
    into=$1
    shift
    rm -rf "$work/download"
    mkdir -p "$work/download"
    (cd "$work/download" && apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root download "$@") || return
    for deb in "$work"/download/*.deb; do
        dpkg-deb -x "$deb" "$into" || return
    done
}

emulator() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 install --no-install-recommends \
        qemu-system-x86
}

busybox() {
    unpack "$work/busybox" busybox-static &&
        cp "$(find "$work/busybox" -path '*bin/busybox')" "$out/busybox.part" &&
        mv "$out/busybox.part" "$out/busybox"
}

kernel() {
    # The package without a version only names the one with the newest.
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p')
    [ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64"; return 1; }
    unpack "$work/kernel" "$package" || return
    image=$(find "$work/kernel/boot" -name 'vmlinuz-*')
    version=${image##*/vmlinuz-}
    mkdir -p "$work/tree/lib/modules" &&
        mv "$(find "$work/kernel" -path "*lib/modules/$version")" "$work/tree/lib/modules/" &&
        find "$work/tree" -name '*.ko.xz' -exec xz -d {} + &&
        "$out/busybox" depmod -b "$work/tree" "$version" || return
    # The kernel itself comes last: it says that its modules are complete.
    rm -rf "$out/modules" &&
        mv "$work/tree/lib/modules" "$out/modules" &&
        cp "$image" "$out/vmlinuz.part" &&
        mv "$out/vmlinuz.part" "$out/vmlinuz"
}

init() {
    # With all it depends on, as for a machine that has nothing yet.
    : >"$work/status"
    packages=$(apt-get -s -o Dir::State::Status="$work/status" --no-install-recommends install systemd dbus |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    [ -n "$packages" ] || { echo "apt knows no systemd"; return 1; }
    # shellcheck disable=SC2086
    unpack "$work/systemd" $packages &&
        rm -rf "$work/systemd/usr/share/doc" "$work/systemd/usr/share/locale" "$work/systemd/usr/share/man" &&
        mv "$work/systemd" "$out/systemd"
}

if command -v qemu-system-x86_64 >/dev/null && [ -x "$out/busybox" ] && [ -f "$out/vmlinuz" ] && [ -d "$out/systemd" ]; then
    exit
fi
step "read the package lists" update || die "apt cannot read its package lists"
if ! command -v qemu-system-x86_64 >/dev/null; then
    step "install qemu-system-x86" emulator || die "apt cannot install qemu-system-x86: it takes root"
fi
[ -x "$out/busybox" ] || step "fetch busybox" busybox || die "busybox cannot be fetched"
[ -f "$out/vmlinuz" ] || step "fetch the cloud kernel" kernel || die "the kernel cannot be fetched"
[ -d "$out/systemd" ] || step "fetch systemd" init || die "systemd cannot be fetched"
