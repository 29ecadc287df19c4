#!/usr/bin/env bash
# The Debian packages that this machine lacks: installed where we are root, else named with the command to paste.
#
#     contrib/debian-packages.sh demo|test|machine
set -euo pipefail

missing=()

# lacking PACKAGE COMMAND…: the package is missing if the command fails. Asks for what is used, not for the package:
# a Python from pyenv or a compiler from elsewhere is as good.
lacking() {
    "${@:2}" >/dev/null 2>&1 || missing+=("$1")
}

lacking python3-venv python3 -c 'import ensurepip, venv'
lacking systemd test -x /lib/systemd/systemd
lacking dbus-user-session test -e /usr/lib/systemd/user/dbus.socket
lacking procps command -v pgrep
# The embedded llama.cpp is linked against it, and its wheel does not bring it.
lacking libgomp1 python3 -c 'import ctypes; ctypes.CDLL("libgomp.so.1")'
lacking curl command -v curl
if [[ $1 == test ]]; then
    # g++ brings gcc and libc6-dev: the tests compile a fake NVML, and llama-server is built from source.
    lacking g++ command -v g++
    lacking make command -v make
    # The status lines in contrib are made of the one and read by the other.
    lacking jq command -v jq
    lacking tmux command -v tmux
    # The gateway's page is tested in it.
    lacking chromium command -v chromium
    # vLLM's kernels for the CPU are linked against it.
    lacking libnuma1 python3 -c 'import ctypes; ctypes.CDLL("libnuma.so.1")'
fi
if [[ $1 == machine ]]; then
    # debootstrap is in a folder that only root has on PATH.
    lacking debootstrap test -x /usr/sbin/debootstrap
    lacking systemd-container command -v systemd-nspawn
fi

if ((${#missing[@]} > 0)); then
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "mmd: this machine lacks: ${missing[*]}." >&2
        echo "  → sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A third-party list that cannot be fetched is no reason to stop: the packages are Debian's own.
    apt-get -qq update || echo "Some package lists are out of reach; going on with those that are here."
    apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null </dev/null
fi

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "mmd: Python 3.11 or newer is needed; python3 is $(python3 --version)." >&2
    echo "  → sudo apt-get install python3 python3-venv   # Debian 12 and newer have it" >&2
    exit 1
fi
