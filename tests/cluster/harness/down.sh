#!/usr/bin/env bash
# `make cluster-down`: end everything that `make cluster` started and remove all it left, but for the installed packages
# and the built tools. Safe to call twice, and on a cluster that came up half-way.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ -e $state ]] || exit 0
[[ $(id -u) == 0 ]] || die "only root can end what root started"
[[ ${1:-} == --locked ]] || lock
say "ending the cluster in $state"

for name in s3-door s3 api-door; do
    stop "$name" KILL
done
# The kernel ends all of the node's processes with its first one, then drops its mounts, bridge and rules.
stop node-1 KILL
stop node KILL

if [[ -r $state/cgroup ]]; then
    cgroups() { find /sys/fs/cgroup -depth -type d -path "*/$(<"$state/cgroup")*" 2>/dev/null; }
    no_cgroups() { cgroups | while read -r folder; do rmdir "$folder" 2>/dev/null || true; done; [[ -z $(cgroups) ]]; }
    wait_for 20 no_cgroups || die "cgroups are still in use: $(cgroups | head -n 3)"
fi
if [[ -r $state/sysctls ]]; then
    while read -r name value; do
        [[ $(<"/proc/sys/$name") == "$value" ]] || echo "$value" >"/proc/sys/$name" || say "could not set $name back to $value"
    done <"$state/sysctls"
fi
if findmnt --noheadings --output TARGET | grep -qF "$state/"; then # never seen; better than removing through a mount
    die "something is still mounted below $state"
fi
rm -rf "$state"
[[ ${1:-} == --locked ]] || rm -f "$state.lock"
