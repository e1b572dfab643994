#!/bin/sh
# Installs what `make bench` needs beside what scripts/install.sh brings: h2load, from the package nghttp2-client.
set -eu

missing=
command -v h2load >/dev/null || missing=nghttp2-client
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "error: missing: $missing; and this is no Debian or Ubuntu (no apt-get)" >&2
    echo "hint: install it with your system's package manager (h2load is a part of nghttp2), then try again" >&2
    exit 69
fi
echo "bench-tools: installing what is missing with apt: $missing" >&2
root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        echo "error: this needs root, and there is no sudo without a password" >&2
        echo "hint: run it yourself, then try again:  sudo apt-get update && sudo apt-get install -y $missing" >&2
        exit 77
    fi
    root='sudo -n'
fi
# Word splitting is meant.
# shellcheck disable=SC2086
{
    $root apt-get update -qq >&2
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
}
