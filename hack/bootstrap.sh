#!/bin/sh
# Makes .venv from the lock file, with the machine's python3 (3.11 or newer) and tools from the Python package registry.
# Prints nothing when there is nothing to do.
set -eu
cd "$(dirname "$0")/.."
# Debian's own before any other: what PATH happens to hold decides nothing where the machine has what is needed
for python in /usr/bin/python3 python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
  python=
done
if [ -z "$python" ]; then
  echo "error: there is no python3 of version 3.11 or newer: install it (Debian 12 or newer: apt-get install python3)" >&2
  exit 1
fi
stamp=.venv/.synced-$(cat pyproject.toml uv.lock hack/tools/uv.txt | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0
PYTHONPATH=hack "$python" -m testbed.bootstrap
rm -f .venv/.synced-*
touch "$stamp"
