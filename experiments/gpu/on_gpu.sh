#!/usr/bin/env bash
# Runs a command on a bare GPU machine that has torch, transformers and lightning: bash on_gpu.sh python3 experiments/run.py ...
# First it installs, into a folder of their own, the wheels in .whl/: the dependencies that the machine lacks (README.md).
# Without that folder, the command runs as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ -d .whl ]; then
  site=$(mktemp -d)
  "${PYTHON:-python3}" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl
  # Manifests name the version of this package, which is not installed there: an entry that says so is enough.
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  mkdir "$site/distdiff-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: distdiff\nVersion: %s\n' "$version" > "$site/distdiff-$version.dist-info/METADATA"
  export PYTHONPATH="$site:$PYTHONPATH"
fi
exec "$@"
