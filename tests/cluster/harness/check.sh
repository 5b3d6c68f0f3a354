#!/usr/bin/env bash
# Can this machine run the cluster? Changes nothing; says what is missing and exits 12 if not.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

missing=()
lacks() { missing+=("$*"); }

[[ $(uname -s) == Linux ]] || lacks "Linux (this is $(uname -s))"
[[ $(id -u) == 0 ]] || lacks "root (this is $(id -un))"
command -v apt-get >/dev/null || lacks "apt-get (a Debian or Ubuntu machine)"
if ! command -v go >/dev/null; then
    lacks "Go 1.26 or newer (there is none in PATH)"
else
    version=$(go env GOVERSION)
    IFS=. read -r major minor _ <<<"${version#go}"
    ((major > 1 || (major == 1 && ${minor%%[!0-9]*} >= 26))) || lacks "Go 1.26 or newer (this is $version)"
fi
case $state in
    /run/* | /var/run/* | /var/lib/* | /var/log/*) lacks "MSTAR_CLUSTER_DIR outside /run, /var/lib and /var/log: the node has its own there (it is $state)" ;;
    /*) ((${#state} <= 70)) || lacks "a shorter MSTAR_CLUSTER_DIR: socket names end at 107 characters (it is $state)" ;;
    *) lacks "an absolute path in MSTAR_CLUSTER_DIR (it is $state)" ;;
esac
if ((${#missing[@]} == 0)); then
    unshare --mount --net --pid --fork --mount-proc true 2>/dev/null || lacks "the right to make namespaces (unshare refused)"
    mount_point=$(findmnt --noheadings --output TARGET --target "$(dirname "$state")" || echo /)
    [[ $(findmnt --noheadings --output FSTYPE "$mount_point") != overlay ]] ||
        lacks "MSTAR_CLUSTER_DIR on a file system that container images can be unpacked on ($mount_point is an overlay)"
fi
# free PORT DOOR: nobody listens there, or our own door does, which may have outlived its node
free() { running "$2" >/dev/null || ! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
choose="which is in use (choose others: MSTAR_CLUSTER_API_PORT, MSTAR_CLUSTER_S3_PORT)"
free "$api_port" api-door || lacks "port $api_port of 127.0.0.1, $choose"
free "$s3_port" s3-door || lacks "port $s3_port of 127.0.0.1, $choose"

if ((${#missing[@]})); then
    printf -v list '%s; ' "${missing[@]}"
    say "cannot run here. It needs ${list%; }."
    exit 12
fi
