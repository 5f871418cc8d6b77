#!/usr/bin/env bash
# Makes .venv from the lock file, with uv from PATH or, where there is none, from the Python package registry.
# Prints nothing when there is nothing to do. Needs python3 (3.11 or newer; uv finds or reports it).
set -euo pipefail
cd "$(dirname "$0")/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/sluice"
stamp=.venv/.synced-$(cat pyproject.toml uv.lock | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  uv="$cache/uv/bin/uv"
  if [ ! -x "$uv" ]; then
    echo "==> getting uv (once)"
    if ! python3 -m venv "$cache/uv" 2>/dev/null; then
      command -v apt-get >/dev/null || { echo "python3 cannot make a virtual environment: install the venv module" >&2; exit 1; }
      apt-get update -q && apt-get install -y -q python3-venv
      python3 -m venv "$cache/uv"
    fi
    "$cache/uv/bin/pip" install -q uv
  fi
fi
echo "==> installing the Python environment from uv.lock"
"$uv" sync -q --locked --all-extras
rm -f .venv/.synced-*
touch "$stamp"
