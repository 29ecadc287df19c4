#!/usr/bin/env bash
# Install the missing Debian packages as root; otherwise print the command that installs them.
#
#     contrib/debian-packages.sh demo|test|machine|package
set -euo pipefail

missing=()

# lacking PACKAGE COMMAND…: the package is missing if the command fails. Tests what is used, not the package: a Python
# from pyenv or another compiler is as good.
lacking() {
    "${@:2}" >/dev/null 2>&1 || missing+=("$1")
}

lacking python3-venv python3 -c 'import ensurepip, venv'
lacking systemd test -x /lib/systemd/systemd
lacking dbus-user-session test -e /usr/lib/systemd/user/dbus.socket
lacking procps command -v pgrep
# The embedded llama.cpp links against it; its wheel does not contain it.
lacking libgomp1 python3 -c 'import ctypes; ctypes.CDLL("libgomp.so.1")'
lacking curl command -v curl
if [[ $1 == test ]]; then
    # g++ brings gcc and libc6-dev: the tests compile a fake NVML, and llama-server is built from source.
    lacking g++ command -v g++
    lacking make command -v make
    # For the status lines in contrib.
    lacking jq command -v jq
    lacking tmux command -v tmux
    # The tests of the gateway's page run in it.
    lacking chromium command -v chromium
    # For the tests of completion.
    lacking zsh command -v zsh
    lacking fish command -v fish
    # Checks the man pages.
    lacking mandoc command -v mandoc
    # vLLM's CPU kernels link against it.
    lacking libnuma1 python3 -c 'import ctypes; ctypes.CDLL("libnuma.so.1")'
fi
if [[ $1 == machine ]]; then
    # /usr/sbin is only on root's PATH.
    lacking debootstrap test -x /usr/sbin/debootstrap
    lacking systemd-container command -v systemd-nspawn
fi

if [[ $1 == machine || $1 == package ]]; then
    # For the suite's number in the package version.
    lacking distro-info-data test -e /usr/share/distro-info/debian.csv
fi
if [[ $1 == package ]]; then
    # The build dependencies in packaging/debian/control, and lintian.
    lacking build-essential dpkg-query --show build-essential
    lacking debhelper command -v dh
    lacking lintian command -v lintian
    lacking python3-pip /usr/bin/python3 -m pip --version
fi

if ((${#missing[@]} > 0)); then
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "mmd: this machine lacks: ${missing[*]}." >&2
        echo "  → sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Continue if a third-party list cannot be fetched: the packages are Debian's own.
    apt-get -qq update || echo "Some package lists could not be fetched; continuing with the others."
    apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null </dev/null
fi

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "mmd: Python 3.11 or newer is needed; python3 is $(python3 --version)." >&2
    echo "  → sudo apt-get install python3 python3-venv   # Debian 12 and newer have it" >&2
    exit 1
fi
