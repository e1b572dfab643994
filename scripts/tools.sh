#!/bin/sh
# Installs the named development tools, each in its one pinned version, where that version is not there already.
#   scripts/tools.sh cargo-nextest cargo-deny cargo-machete
# And promtool, which checks metrics and alerts, and nginx, of whatever version Debian or Ubuntu has.
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

# Into `$folder`. Where the lists of packages are missing, as on many a new machine, they are fetched first.
download() {
    (cd "$folder" && apt-get download -qq "$1" 2>/dev/null) && return 0
    update_lists
    (cd "$folder" && apt-get download -qq "$1" >&2)
}

update_lists() {
    [ -z "${updated:-}" ] || return 0
    updated=yes
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq >&2 || true
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n apt-get update -qq >&2 || true
    fi
}

# take PROGRAM PACKAGE...
# Out of the first package alone that has it: installed, each would start a server on this machine.
take() {
    program=$1
    shift
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null && return 0
    folder=$(mktemp -d)
    chmod 755 "$folder"
    trap 'rm -rf "$folder"' EXIT
    bin=${CARGO_HOME:-$HOME/.cargo}/bin
    mkdir -p "$bin"
    for package in "$@"; do
        echo "taking $program out of the package $package" >&2
        download "$package" || continue
        dpkg-deb --fsys-tarfile "$folder/$package"_*.deb |
            tar -x -C "$folder" --wildcards "./usr/*bin/$program" 2>/dev/null || continue
        mv "$folder"/usr/*bin/"$program" "$bin/$program"
        rm -rf "$folder"
        return 0
    done
    echo "error: apt-get cannot download $program, which should be in the package $1" >&2
    echo "hint: sudo apt-get update, then try again; elsewhere, put $program into your PATH" >&2
    exit 69
}

for tool in "$@"; do
    case $tool in
        promtool)
            take promtool prometheus
            continue
            ;;
        nginx)
            # Ubuntu's before 24.04 have the program in packages of several flavours.
            take nginx nginx nginx-core nginx-light
            continue
            ;;
    esac
    version=$(version_of "$tool")
    if [ "$(installed "$tool")" != "$version" ]; then
        echo "installing $tool $version with cargo (once; takes some minutes)" >&2
        cargo install --locked "$tool@$version"
    fi
done
