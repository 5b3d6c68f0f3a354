#!/usr/bin/env bash
# A base image from Debian's own packages, for a machine that reaches no image registry: localhost/mstar-debian:12.
# Needs root, debootstrap, and podman or buildah. `make images BASE=localhost/mstar-debian:12` builds on it.
set -euo pipefail
name=localhost/mstar-debian:12
packages=python3,python3-venv,ca-certificates,libnuma1

if buildah inspect --type image "$name" >/dev/null 2>&1; then
    echo "$name"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/mstar-debian.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
debootstrap --variant=minbase --include="$packages" bookworm "$work/root" ${MIRROR:+"$MIRROR"} >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" >&2; exit 1; }
rm -rf "$work/root/var/cache/apt/archives/"*.deb "$work/root/var/lib/apt/lists/"*
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/root" / >&2
buildah config --cmd /bin/sh "$container"
buildah commit --quiet --format docker "$container" "$name" >&2
buildah rm "$container" >/dev/null
echo "$name"
