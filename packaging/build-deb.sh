#!/usr/bin/env bash
# Build the Debian package of this checkout: for this machine's suite, into dist/; or, as root, in a clean Debian of SUITE,
# which is made once in ~/.cache/mmd-build, into dist/SUITE/.
#
#     packaging/build-deb.sh [SUITE]
set -euo pipefail

checkout=$(realpath "$(dirname "$0")/..")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmd-build
suite=${1-}
root=$cache/debian-$suite
authorities=/etc/ssl/certs/ca-certificates.crt

main() {
    mkdir -p "$cache/pip"
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    stage
    if [[ $suite ]]; then
        make_root
    fi
    echo "Fetching the bundled wheels, in the versions of constraints.txt"
    run debian/rules wheels
    set_version
    echo "Building $(run dpkg-parsechangelog -S Version)"
    run_offline dpkg-buildpackage --build=binary --no-pre-clean --unsigned-changes >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    echo "Checking it with lintian"
    run_offline sh -c 'lintian --allow-root --info --display-info --fail-on error,warning,info ../*.changes'
    keep
}

# Copy the checkout without ignored files; dpkg expects the packaging in debian/.
stage() {
    mkdir "$work/mmd"
    git -C "$checkout" ls-files -z --cached --others --exclude-standard |
        tar -C "$checkout" --null --files-from=- --ignore-failed-read -c | tar -C "$work/mmd" -x
    mv "$work/mmd/packaging/debian" "$work/mmd/debian"
}

# One package per suite, because each has its own Python. The version grows with the suite, so that an upgrade of Debian
# upgrades the package.
set_version() {
    local codename number
    codename=$(run sh -c '. /etc/os-release; echo "$VERSION_CODENAME"')
    number=$(awk -F, -v codename="$codename" '$3 == codename { print $1 }' /usr/share/distro-info/debian.csv)
    [[ $number ]] || fail "distro-info-data does not list Debian $codename" "apt-get install distro-info-data"
    sed -i "1s/(\(.*\)) [a-z]*;/(\1~deb${number}u1) $codename;/" "$work/mmd/debian/changelog"
}

# Keep one package per folder, so that dist/mmd_*.deb matches only this one.
keep() {
    local package folder=$checkout/dist${suite:+/$suite}
    package=$(cd "$work" && echo *.deb)
    mkdir -p "$folder"
    rm -f "$folder"/mmd_*.deb
    cp "$work/$package" "$folder/"
    # Files belong to the owner of the checkout, even if root builds.
    chown --reference="$checkout" "$checkout/dist" "$folder" "$folder/$package"
    echo "$folder/$package"
}

# -- the build environment

# run COMMAND…: run in the staged tree, with the programs of the suite.
run() {
    if [[ $suite ]]; then
        in_root --read-only "$@"
    else
        (cd "$work/mmd" && PIP_CACHE_DIR=$cache/pip "$@")
    fi
}

# The same without network, where we may take it away.
run_offline() {
    if [[ $suite ]]; then
        in_root --read-only --private-network "$@"
    else
        run "$@"
    fi
}

# in_root OPTION… COMMAND…: run in the clean Debian.
in_root() {
    local options=(--quiet --pipe --register=no --keep-unit --directory="$root" --tmpfs=/tmp --chdir=/build/mmd)
    options+=(--bind="$work:/build" --bind="$cache/pip:/var/cache/pip" --setenv=PIP_CACHE_DIR=/var/cache/pip)
    # pip uses the host's configuration and certificate authorities, at a path that packages in the root do not own.
    [[ -e /etc/pip.conf ]] && options+=(--bind-ro=/etc/pip.conf)
    [[ -e $authorities ]] && options+=(--bind-ro="$authorities:/var/cache/host.crt" --setenv=PIP_CERT=/var/cache/host.crt)
    while [[ $1 == --* ]]; do
        options+=("$1")
        shift
    done
    systemd-nspawn "${options[@]}" "$@" </dev/null
}

# Make a minimal Debian with the build dependencies; make it again if they have changed.
make_root() {
    local wanted script=/usr/share/debootstrap/scripts/$suite
    local install="apt-get --yes build-dep . && apt-get --yes --no-install-recommends install lintian"
    ((EUID == 0)) || fail "only root can make a clean Debian $suite to build in" "sudo make deb SUITE=$suite"
    exec {lock}>"$root.lock"
    flock "$lock"
    wanted=$(sed -n '/^Build-Depends:/,/^[^ ]/p' "$work/mmd/debian/control")
    [[ -e $root.made && $(<"$root.made") == "$wanted" ]] && return
    echo "Making a clean Debian $suite to build in, in $root"
    [[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid # for a suite newer than this debootstrap
    rm -rf --one-file-system "$root" "$root.made"
    debootstrap --variant=buildd "$suite" "$root" http://deb.debian.org/debian "$script" >"$work/log" 2>&1 || {
        tail -20 "$work/log" >&2
        exit 1
    }
    mkdir "$root/build" "$root/var/cache/pip"
    touch "$root/etc/pip.conf" "$root/var/cache/host.crt"
    in_root --setenv=DEBIAN_FRONTEND=noninteractive sh -c "$install" >"$work/log" 2>&1 || {
        tail -20 "$work/log" >&2
        exit 1
    }
    echo "$wanted" >"$root.made"
}

fail() {
    echo "mmd: $1." >&2
    echo "  → $2" >&2
    exit 1
}

main
