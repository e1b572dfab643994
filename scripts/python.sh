#!/bin/sh
# Makes the environment for Python that tests use, with what tests/real/python/requirements.txt pins, and prints its folder.
# Made once, and again when the list or Python has changed. Several may ask at a time.
set -eu

cd "$(dirname "$0")/.."
readonly list=tests/real/python/requirements.txt
folder=${CARGO_TARGET_DIR:-target}/python
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

exec 9>"$folder/lock"
flock 9
wanted=$(python3 --version && cat "$list")
if [ "$(cat "$folder/made" 2>/dev/null)" != "$wanted" ]; then
    echo "python: installing what $list says" >&2
    rm -rf "$folder/venv" "$folder/made"
    if ! python3 -m venv "$folder/venv" >&2; then
        echo "error: python3 cannot make an environment" >&2
        echo "hint: run scripts/install.sh, or install python3-venv, then try again" >&2
        exit 69
    fi
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$list" >&2
    echo "$wanted" >"$folder/made"
fi
echo "$folder/venv"
