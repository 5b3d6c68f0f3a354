#!/usr/bin/env bash
# Put the harness's own image, one static program, into the node: the pods' sandboxes and the harness's tests use it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=$(<"$state/tools")
image=localhost/mstar-kit:1
archive=$tools/kit.tar

containerd() { ctr --address "$state/containerd.sock" --namespace k8s.io "$@"; }

if [[ ! -e $archive ]]; then
    work=$(mktemp -d "$state/kit.XXXXXX")
    build() { buildah --root "$work/root" --runroot "$work/run" --storage-driver vfs "$@"; }
    container=$(build from scratch)
    quietly build copy --chmod 755 "$container" "$tools/kit" /kit
    build config --entrypoint '["/kit"]' --cmd '["sleep"]' --user 65535:65535 "$container"
    quietly build commit "$container" "docker-archive:$work/kit.tar:$image"
    build rm "$container" >/dev/null
    mv "$work/kit.tar" "$archive"
    rm -rf "$work"
fi
wait_for 60 containerd version || die "containerd does not answer; see $state/log/containerd.log"
quietly containerd images import "$archive"
