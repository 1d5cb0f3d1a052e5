#!/usr/bin/env bash
# Runs once, as root, when Gradescope builds the image.
set -euo pipefail
SOURCE="${AUTOGRADER_ROOT:-/autograder}/source"

if command -v apt-get >/dev/null; then
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y python3 python3-venv util-linux
fi
python3 -m venv /opt/tinytorch
/opt/tinytorch/bin/python -m pip install -q -r "$SOURCE/requirements.txt"

# A submission runs as another user, which must not read the suites or the solutions.
chmod -R o= "$SOURCE"
