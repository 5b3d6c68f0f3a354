#!/usr/bin/env bash
# Build the images with docker, podman or buildah: `tools/images.sh [IMAGE...]`, the five without a name.
# Prints the names of what was asked for, one a line; an image whose inputs did not change is not built again.
#
#   BASE      image with Python 3.11 and CA certificates (default: Debian's Python, from Docker Hub)
#   VARIANT   cpu (default) or gpu: which lock the generator is built from
#   REGISTRY  default localhost       TAG    default: the project's version
#   PUSH=1    push what was built     BUILDER docker, podman or buildah (default: the first that is there)
#   LEGACY=1  the legacy image too, which only models that need transformers 4.48 want
#   UV_CONFIG a uv.toml that names your package index; used while building, in no layer
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

base=${BASE:-docker.io/library/python:3.11-slim-bookworm}
variant=${VARIANT:-cpu}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' mstar/__init__.py)
tag=${TAG:-$version}
prefix=${REGISTRY:-localhost}/mstar-
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
usual=(controller scorer evaluator trainer generator)
all=("${usual[@]}" legacy)
wanted=("$@")
[[ ${#wanted[@]} -gt 0 ]] || wanted=("${usual[@]}" ${LEGACY:+legacy})

say() { printf '%s\n' "$*" >&2; }
die() { say "images: $*"; exit "${2:-3}"; }

for image in "${wanted[@]}"; do
    [[ " ${all[*]} " == *" $image "* ]] || die "there is no image '$image'; expected some of: ${all[*]}"
done
[[ -e images/generator/requirements-$variant.txt ]] || die "VARIANT is '$variant'; expected cpu or gpu"

builder=${BUILDER:-}
for candidate in docker podman buildah; do
    # A docker client without a server is no builder.
    [[ -n $builder ]] && break
    if [[ $candidate == docker ]]; then docker info >/dev/null 2>&1 && builder=docker; continue; fi
    command -v "$candidate" >/dev/null && builder=$candidate
done
[[ -n $builder ]] || die "expected docker (with its server), podman or buildah; install one of them" 12

options=()
if [[ $builder == docker ]]; then
    export DOCKER_BUILDKIT=1
else
    options+=(--format docker)
    # Builds that run as root in a container have no right to make another one.
    [[ $(id -u) != 0 ]] || options+=(--isolation chroot)
    # Certificates of this machine's own: needed where a proxy signs what it passes on; in no layer.
    [[ -z ${SSL_CERT_FILE:-} ]] || options+=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
fi
[[ -z ${UV_CONFIG:-} ]] || options+=(--secret "id=uv,src=$UV_CONFIG")

build() { # build NAME FILE TARGET INPUTS: INPUTS is the hash of all that goes in
    local name=$1 file=$2 target=$3 inputs=$4 start=$SECONDS command=(build)
    if [[ $(label "$prefix$name:$tag") == "$inputs" ]]; then
        say "images: $prefix$name:$tag is up to date"
        return
    fi
    [[ $builder == buildah ]] && command=(bud)
    [[ -z $target ]] || command+=(--target "$target")
    say "images: building $prefix$name:$tag with $builder"
    "$builder" "${command[@]}" "${options[@]}" --file "$file" --tag "$prefix$name:$tag" \
        --label "dev.mstar.inputs=$inputs" --build-arg "BASE=$base" --build-arg "VARIANT=$variant" \
        --build-arg "PREFIX=$prefix" --build-arg "TAG=$tag" --build-arg "VERSION=$version" \
        --build-arg "REVISION=$revision" . >&2 || die "building $name failed (see above)" 1
    say "images: $prefix$name:$tag took $((SECONDS - start)) s"
}

label() {
    case $builder in
        buildah) buildah inspect --type image --format '{{index .Docker.Config.Labels "dev.mstar.inputs"}}' "$1" 2>/dev/null || true ;;
        *) "$builder" image inspect --format '{{index .Config.Labels "dev.mstar.inputs"}}' "$1" 2>/dev/null || true ;;
    esac
}

sum() { sha256sum | cut -c1-16; }
source_sum=$(find mstar cli/mstarctl pyproject.toml README.md LICENSE -type f -not -name '*.pyc' -print0 |
    sort -z | xargs -0 sha256sum | sum)
base_sum=$({ echo "$base"; cat images/base/Containerfile images/base/tools.txt; } | sum)
torch_sum=$({ echo "$base_sum"; cat images/scorer/requirements.txt; } | sum)
wheel_sum=$({ echo "$base_sum $source_sum"; cat images/base/wheel.Containerfile; } | sum)

leave_no_rest() { # images that a newer one replaced, and the containers that buildah forgets when a stage is mounted
    case $builder in
        docker | podman) "$builder" image prune --force --filter label=dev.mstar.inputs >/dev/null 2>&1 || true ;;
        buildah)
            buildah containers --noheading --format '{{.ContainerID}} {{.ContainerName}}' |
                { grep -E ' mstar-tools-working-container(-[0-9]+)?$' || true; } | cut -d' ' -f1 | xargs -r buildah rm >/dev/null
            buildah images --quiet --filter dangling=true --filter label=dev.mstar.inputs |
                sort -u | xargs -r buildah rmi >/dev/null 2>&1 || true
            ;;
    esac
}

if [[ $builder == buildah ]]; then
    # One build at a time: what no name points to any more is then nobody's.
    exec 8>"${TMPDIR:-/tmp}/mstar-images.lock"
    flock 8
fi
leave_no_rest # a build that was killed may have left gigabytes
trap leave_no_rest EXIT
build build images/base/Containerfile tools "$base_sum"
build tools images/base/wheel.Containerfile "" "$wheel_sum"
build base images/base/Containerfile base "$base_sum"
for image in "${wanted[@]}"; do
    # The controller needs no torch, and the legacy image brings another set around it.
    [[ $image == controller || $image == legacy ]] || { build torch images/base/Containerfile torch "$torch_sum"; break; }
done
for image in "${wanted[@]}"; do
    inputs=$({ echo "$wheel_sum $torch_sum $variant"; cat "images/$image"/*; } | sum)
    build "$image" "images/$image/Containerfile" "" "$inputs"
    [[ -z ${PUSH:-} ]] || "$builder" push "$prefix$image:$tag" >&2
done
for image in "${wanted[@]}"; do
    printf '%s\n' "$prefix$image:$tag"
done
