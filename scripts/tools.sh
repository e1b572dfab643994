#!/bin/sh
# Installs the named development tools, each in its one pinned version, where that version is not there already.
#   scripts/tools.sh cargo-nextest cargo-deny cargo-machete
# And promtool, which checks metrics and alerts, of whatever version Debian or Ubuntu has.
set -eu

version_of() {
    case $1 in
        cargo-nextest) echo 0.9.143 ;;
        cargo-deny) echo 0.20.2 ;;
        cargo-fuzz) echo 0.13.2 ;;
        cargo-machete) echo 0.9.2 ;;
        *)
            echo "error: no version is pinned for $1" >&2
            echo "hint: add it to version_of in $0" >&2
            exit 64
            ;;
    esac
}

# The first thing that looks like a version in what the tool says of itself.
installed() {
    cargo "${1#cargo-}" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1
}

# A tool's build must not fill, or be confused by, the target folder of this project.
unset CARGO_TARGET_DIR

# Out of the package alone: installed, that would start a server on this machine, and bring a browser's fonts.
take_promtool() {
    ! command -v promtool >/dev/null || return 0
    echo "taking promtool out of the package prometheus" >&2
    folder=$(mktemp -d)
    chmod 755 "$folder"
    trap 'rm -rf "$folder"' EXIT
    if ! (cd "$folder" && apt-get download -qq prometheus >&2); then
        echo "error: apt-get cannot download the package prometheus, which has promtool" >&2
        echo "hint: sudo apt-get update, then try again; elsewhere, put promtool into your PATH" >&2
        exit 69
    fi
    bin=${CARGO_HOME:-$HOME/.cargo}/bin
    mkdir -p "$bin"
    dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -x -C "$folder" ./usr/bin/promtool
    mv "$folder/usr/bin/promtool" "$bin/promtool"
    rm -rf "$folder"
}

for tool in "$@"; do
    if [ "$tool" = promtool ]; then
        take_promtool
        continue
    fi
    version=$(version_of "$tool")
    if [ "$(installed "$tool")" != "$version" ]; then
        echo "installing $tool $version with cargo (once; takes some minutes)" >&2
        cargo install --locked "$tool@$version"
    fi
done
