#!/usr/bin/env bash
# Build the RPM of this checkout for this machine's Python, into dist/. It needs the network for the bundled wheels, and on
# Fedora the build dependencies: sudo dnf builddep packaging/rpm/mmd.spec
#
#     packaging/build-rpm.sh [OPTION…]      options for rpmbuild
set -euo pipefail

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's,^Version: *,,p' packaging/rpm/mmd.spec)

echo "Fetching the bundled wheels, in the versions of constraints.txt"
python3 -m hatchling build --directory "$work/sources" 2>"$work/log"
python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: -c constraints.txt \
    -d "$work/wheels" "$work/sources/mmd-$version-py3-none-any.whl[embedded]"
# mmd's own wheel is built from its source.
rm "$work/wheels/mmd-$version-py3-none-any.whl"
tar -C "$work" -cf "$work/sources/mmd-wheels-$version.tar" wheels

echo "Building mmd $version"
rpmbuild -bb --quiet --define "_topdir $work" --define "_sourcedir $work/sources" "$@" packaging/rpm/mmd.spec \
    >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
mkdir -p dist
cp "$work"/RPMS/*/*.rpm dist/
ls dist/*.rpm
