#!/usr/bin/env bash
# Runs the tests that need no media server on every other Python of this machine, each in an environment of its own.
# Called by `make test-pythons`. A Python is found as python3.X on the PATH or among pyenv's versions.
set -euo pipefail

own=$("$PY" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

find_python() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

ran=0
for version in 3.11 3.12 3.13 3.14; do
  [[ $version == "$own" ]] && continue
  python=$(find_python "$version")
  if [[ -z $python ]]; then
    echo "Python $version is not on this machine."
    continue
  fi
  echo "== $("$python" --version)"
  make --no-print-directory setup-dev PYTHON="$python" VENV="$VENV-py$version"
  "$VENV-py$version/bin/python" -m pytest tests/unit tests/store -q
  ran=$((ran + 1))
done
echo "Tested on $ran further Python version(s) besides $own."
