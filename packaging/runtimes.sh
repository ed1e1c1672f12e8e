#!/bin/sh
# Fetches the containerd releases that the contract suite runs on beside the
# system's own, and unpacks them; nothing is installed.
#
# usage: packaging/runtimes.sh [DIRECTORY]     (default: target/runtimes)
#
# Debian 13's containerd becomes DIRECTORY/1.7, unstable's DIRECTORY/2.1. apt
# downloads and verifies them with a configuration, lists and a cache of its
# own: the system's package lists stay as they are. The mirror and the keyring
# are those that the system already uses.
set -eu
. "$(dirname "$0")/progress.sh"

out=${1:-target/runtimes}
mkdir -p "$out"
out=$(cd "$out" && pwd)

say() { printf '%s\n' "runtimes: $*" >&2; }
die() { say "$*"; exit 1; }

command -v apt-get >/dev/null || die "apt-get is missing: this needs Debian or a derivative"
command -v dpkg-deb >/dev/null || die "dpkg-deb is missing: this needs Debian or a derivative"

# The first Debian mirror among the system's sources, in either file format.
mirror=$(
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p'
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs: *\([^ ]*\).*/\1/p'
)
mirror=$(printf '%s\n' "$mirror" | grep -v security | head -n 1)
[ -n "$mirror" ] || die "no Debian mirror among the apt sources"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
architecture=$(dpkg --print-architecture)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch SUITE NAME VERSION-PREFIX
fetch() {
    private=$work/$1
    mkdir -p "$private/lists/partial" "$private/archives/partial" "$private/unpacked" "$private/download"
    # apt drops its privileges for downloads.
    chmod -R a+rX "$work"
    printf 'deb [signed-by=%s arch=%s] %s %s main\n' "$keyring" "$architecture" "$mirror" "$1" >"$private/sources.list"
    : >"$private/status"
    set -- "$1" "$2" "$3" \
        -o Dir::Etc::SourceList="$private/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$private/lists" -o Dir::State::Status="$private/status" \
        -o Dir::Cache="$private" -o Dir::Cache::Archives="$private/archives" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root
    suite=$1 name=$2 prefix=$3
    shift 3
    apt-get -qq "$@" update || die "apt cannot read the package list of $suite"
    (cd "$private/download" && apt-get -qq "$@" download containerd) || die "apt cannot download containerd of $suite"
    for deb in "$private"/download/containerd_*.deb; do
        dpkg-deb -x "$deb" "$private/unpacked"
    done
    version=$("$private/unpacked/usr/bin/containerd" --version)
    case $version in
    *" $prefix"*) ;;
    *) die "$suite has another containerd than $prefix: $version" ;;
    esac
    rm -rf "${out:?}/$name"
    mv "$private/unpacked" "$out/$name"
}

# want SUITE NAME VERSION-PREFIX
want() {
    [ -x "$out/$2/usr/bin/containerd" ] || step "fetch containerd $3 from $1" fetch "$@"
}

want trixie 1.7 1.7.
want sid 2.1 2.
