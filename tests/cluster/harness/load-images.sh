#!/usr/bin/env bash
# load-images.sh IMAGE...: put images of this machine's buildah or podman into the node. What the node has, be it a whole
# image or some of its layers, is not moved again: an image that changed in its last layer takes a second.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
running node-1 >/dev/null || die "the cluster does not run: make cluster"

node_images() { ctr --address "$state/containerd.sock" --namespace k8s.io images "$@"; }

touch "$state/loaded" # lines of name and identity
present=$(node_images ls --quiet)
wanted=() lines=()
for name in "$@"; do
    id=$(buildah inspect --type image --format '{{.FromImageID}}' "$name") || die "this machine has no image $name"
    if grep -qxF "$name $id" "$state/loaded" && grep -qxF "$name" <<<"$present"; then
        continue
    fi
    wanted+=("$name")
    lines+=("$name $id")
done
((${#wanted[@]})) || exit 0

say "loading ${wanted[*]}"
if [[ ! -s $state/loaded ]]; then
    # All of them in one stream, shared layers once: the quickest way into a node that has nothing yet.
    podman save --quiet --multi-image-archive "${wanted[@]}" | quietly node_images import -
else
    # The layers that the node has, linked into the layout under their digests, are found there by buildah and left alone.
    layout=$(mktemp -d "$state/load.XXXXXX")
    trap 'rm -rf "$layout"' EXIT
    mkdir -p "$layout/blobs/sha256"
    find "$state/containerd/io.containerd.content.v1.content/blobs/sha256" -type f -exec cp --link -t "$layout/blobs/sha256" {} +
    for name in "${wanted[@]}"; do
        quietly buildah push --quiet --disable-compression "$name" "oci:$layout:$name"
    done
    # containerd takes a name as it is from an annotation of its own.
    sed -i 's/"org\.opencontainers\.image\.ref\.name"/"io.containerd.image.name"/g' "$layout/index.json"
    (cd "$layout" && find oci-layout index.json blobs -type f -links 1 -print0 | tar --create --null --files-from=-) |
        quietly node_images import -
fi
for line in "${lines[@]}"; do
    sed -i "\|^${line%% *} |d" "$state/loaded"
    printf '%s\n' "$line" >>"$state/loaded"
done
