#!/bin/sh
# Installs packages of PyPI, each in the version that is named, into a folder of their own, unless they are there already, and
# prints that folder: its bin/ has their programs, and a python that knows them.
#   scripts/python.sh kosoku==0.1.0 websockets==17.4
set -eu

[ $# -gt 0 ] || { echo "usage: $0 PACKAGE==VERSION ..." >&2; exit 64; }
for package in "$@"; do
    case $package in
        *==*) ;;
        *)
            echo "error: $package names no version" >&2
            echo "hint: $package==VERSION, so that everybody has the same" >&2
            exit 64
            ;;
    esac
done

# One folder for each set of packages: those of one test do not get in the way of another's.
name=$(printf '%s\n' "$@" | LC_ALL=C sort | cksum | cut -d ' ' -f 1)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/dormouse-python/$name
mkdir -p "$(dirname "$folder")"
# Whoever comes second waits for who is at it, and finds it done.
exec 9>"$folder.lock"
flock 9
if [ ! -e "$folder/complete" ]; then
    rm -rf "$folder"
    if ! python3 -m venv "$folder" >/dev/null 2>&1; then
        echo "installing python3-venv with apt-get (once)" >&2
        rm -rf "$folder"
        sudo=$([ "$(id -u)" = 0 ] || echo sudo)
        $sudo apt-get install -qq -y python3-venv >&2
        python3 -m venv "$folder" >&2
    fi
    echo "installing $* with pip (once)" >&2
    "$folder/bin/pip" --quiet --disable-pip-version-check install "$@" >&2
    touch "$folder/complete"
fi
echo "$folder"
