#!/usr/bin/env bash
# Install the Debian packages whose commands are missing. They stay: `make cluster-down` removes no package.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# command or file: package
needs=(
    etcd:etcd-server containerd:containerd ctr:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins
    iptables:iptables conntrack:conntrack ip:iproute2 socat:socat openssl:openssl pgrep:procps flock:util-linux
    buildah:buildah podman:podman debootstrap:debootstrap
)
wanted=()
for need in "${needs[@]}"; do
    what=${need%%:*}
    [[ -e $what ]] || command -v "$what" >/dev/null || wanted+=("${need##*:}")
done
((${#wanted[@]})) || exit 0

say "installing ${wanted[*]}"
export DEBIAN_FRONTEND=noninteractive
for try in 1 2 3; do
    if quietly apt-get update -q && quietly apt-get install -q -y "${wanted[@]}"; then
        exit 0
    fi
    say "apt-get failed (try $try of 3)"
    sleep $((try * 5))
done
die "could not install ${wanted[*]}"
