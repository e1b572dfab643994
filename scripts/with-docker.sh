#!/bin/sh
# Runs a command that needs the Docker Engine.
#
# Whoever was added to the group `docker` a moment ago has that right in the next login only; `sg` gives it to one
# command now. In every other case the command simply takes the place of this script, so that Ctrl-C reaches it.
#   scripts/with-docker.sh COMMAND [ARGUMENT...]
set -eu

socket=/var/run/docker.sock
user=$(id -un)

if [ -n "${DOCKER_HOST:-}" ] || [ -w "$socket" ] || ! command -v sg >/dev/null; then
    exec "$@"
fi
if ! getent group docker | cut -d: -f4 | tr ',' '\n' | grep -qxF "$user"; then
    exec "$@"
fi

# `sg` takes one line for the shell: each word is quoted, and so stays what it is.
line='exec'
for word in "$@"; do
    line="$line '$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
done
exec sg docker "$line"
