#!/bin/sh
# Installs what Dormouse needs on a Debian or Ubuntu machine that has Rust: C and C++ compilers, make, cmake, git and a Docker
# Engine, and starts the engine where none runs. With `tests` also the clients and servers of others that tests and benches use.
#   scripts/install.sh [tests]
#
# It tells what it does and asks nothing. It installs only what is missing, and leaves an engine that runs alone. Where
# it may not act it prints the command for whoever may, and ends with 77.
set -eu

# Where dockerd and usermod are, which is not in everybody's path.
PATH=$PATH:/usr/sbin:/sbin

readonly START_SECONDS=60
readonly LOG=/var/log/dockerd.log

say() { echo "install: $*" >&2; }

# fail CODE WHAT HINT
fail() {
    echo "error: $2" >&2
    echo "hint: $3" >&2
    exit "$1"
}

# as_root BY_HAND COMMAND [ARGUMENT...]
# Runs a command as root: directly, or by sudo where that asks no password; or says what to run by hand.
as_root() {
    by_hand=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        fail 77 "this needs root, and there is no sudo without a password" "run it yourself, then try again:  $by_hand"
    fi
}

# --- packages

what=${1:-}
case $what in
    '' | tests) ;;
    *) fail 64 "'$what' is nothing to install for" "say  scripts/install.sh  or  scripts/install.sh tests" ;;
esac

# The packages that are missing, each found out by what it brings.
missing() {
    command -v cc >/dev/null || echo gcc
    # The static C library: the programs that go into images have nothing else with them.
    [ -f "$(cc -print-file-name=libc.a 2>/dev/null)" ] || echo libc6-dev
    # For the library under the fuzz targets.
    command -v c++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
    # For the zlib-ng that the proxy's compression brings.
    command -v cmake >/dev/null || echo cmake
    command -v git >/dev/null || echo git
    [ -z "$what" ] || missing_for_tests
    [ -n "${DOCKER_HOST:-}" ] || [ "$(engine)" != absent ] || command -v dockerd >/dev/null || echo docker.io
}

# None of these packages starts a server.
missing_for_tests() {
    command -v slowhttptest >/dev/null || echo slowhttptest
    command -v curl >/dev/null || echo curl
    command -v h2load >/dev/null || echo nghttp2-client
    command -v apache2 >/dev/null || echo apache2-bin
    command -v node >/dev/null || echo nodejs
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
    packages=$(missing | tr '\n' ' ')
    packages=${packages% }
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null ||
        fail 69 "missing: $packages; and this is no Debian or Ubuntu (no apt-get)" \
            "install them with your system's package manager, then try again"
    say "installing what is missing with apt: $packages"
    by_hand="sudo apt-get update && sudo apt-get install -y $packages"
    as_root "$by_hand" apt-get update -qq >&2
    # Word splitting is meant: one word a package.
    # shellcheck disable=SC2086
    as_root "$by_hand" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2
    case " $packages " in *" docker.io "*) join_group ;; esac
}

# Only whoever installs the engine here gets the right to use it; an engine that was there has its own rules.
join_group() {
    [ "$(id -u)" != 0 ] || return 0
    say "adding $(id -un) to the group docker, which may use the engine (and so has root's power on this machine)"
    as_root "sudo usermod -aG docker $(id -un)" usermod -aG docker "$(id -un)"
}

# --- the engine

socket=/var/run/docker.sock

# Says how it stands with the engine: `answers`, `refuses` (it is there, this user may not use it) or `absent`.
# Perl is part of every Debian and Ubuntu; curl and the docker client are not.
engine() {
    perl -MIO::Socket::UNIX -MErrno=EACCES -e '
        alarm 5;
        my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]);
        if (!$socket) { print $! == EACCES ? "refuses" : "absent"; exit }
        print $socket "GET /_ping HTTP/1.0\r\n\r\n";
        my $line = <$socket> // "";
        print $line =~ / 200 / ? "answers" : "absent";
    ' "$socket" 2>/dev/null || true
}

# The same for the one who starts it, who may not be in the group yet.
engine_runs() {
    case $(engine) in
        answers | refuses) return 0 ;;
        *) return 1 ;;
    esac
}

# forget_dead NAME FILE
# An engine that was killed leaves its process id behind, and starts no more while a process has that id: another program,
# or a dead one that nobody waited for.
forget_dead() {
    [ -f "$2" ] || return 0
    status=/proc/$(cat "$2")/status
    if [ -r "$status" ] && grep -q "^Name:[[:space:]]*$1$" "$status" && ! grep -q "^State:[[:space:]]*Z" "$status"; then
        return 0
    fi
    say "removing $2, which a killed $1 left behind"
    as_root "sudo rm $2" rm -f "$2"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting the Docker Engine: systemctl start docker"
        as_root "sudo systemctl start docker" systemctl start docker
    else
        forget_dead dockerd /var/run/docker.pid
        forget_dead containerd /var/run/docker/containerd/containerd.pid
        say "starting the Docker Engine: dockerd (log: $LOG)"
        # A session of its own: Ctrl-C at the terminal must not end it.
        as_root "sudo dockerd" sh -c "setsid dockerd </dev/null >>$LOG 2>&1 &"
    fi
    waited=0
    until engine_runs; do
        [ "$waited" -lt "$START_SECONDS" ] || {
            [ ! -r "$LOG" ] || tail -n 5 "$LOG" >&2
            fail 69 "the Docker Engine did not answer at $socket within $START_SECONDS s" \
                "see $LOG, or 'journalctl -u docker' where systemd runs"
        }
        sleep 1
        waited=$((waited + 1))
    done
}

ready_engine() {
    if [ -n "${DOCKER_HOST:-}" ]; then
        say "using the Docker Engine at $DOCKER_HOST (DOCKER_HOST)"
        return
    fi
    engine_runs || start_engine
    [ "$(engine)" = refuses ] || return 0
    # scripts/with-docker.sh helps whoever is in the group, but has not logged in again since.
    getent group docker | cut -d: -f4 | tr ',' '\n' | grep -qxF "$(id -un)" ||
        fail 77 "a Docker Engine runs, but $(id -un) may not use $socket" \
            "run  sudo usermod -aG docker $(id -un)  and log in again; or set DOCKER_HOST to another engine"
}

command -v cargo >/dev/null || fail 69 "there is no Rust here (no cargo)" "install it from https://rustup.rs, then try again"
install_packages
ready_engine
