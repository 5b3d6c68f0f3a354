# shellcheck shell=bash disable=SC2034
# Sourced by every script here: where things lie, how to complain, and processes known by number and start time.
set -euo pipefail

harness=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
project=$(cd "$harness/../../.." && pwd -P)
temporary=${TMPDIR:-/tmp}
state=${MSTAR_CLUSTER_DIR:-${temporary%/}/mstar-cluster}
cache=${MSTAR_CACHE_DIR:-${temporary%/}/mstar-cache}

# Inside the node's own network, so they collide with nothing outside. The node is also the pods' gateway.
node_address=10.244.0.1
pod_network=10.244.0.0/24
service_network=10.96.0.0/16
# On this machine's loopback address: these two may collide, and can be chosen.
api_port=${MSTAR_CLUSTER_API_PORT:-6443}
s3_port=${MSTAR_CLUSTER_S3_PORT:-7070}

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Run a command, silently when it works; otherwise show what it said.
quietly() {
    local output
    output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2; return 1; }
}

# wait_for SECONDS COMMAND...: true as soon as the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.3
    done
}

# Numbers of processes are given out again; a number with its start time is not.
started_at() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != Z ]] || return 1
    printf '%s\n' "${stat[19]}"
}

# remember NAME PID: write the pid file.
remember() { printf '%s %s\n' "$2" "$(started_at "$2")" >"$state/$1.pid"; }

# running NAME: print its number if it is still the process that was remembered.
running() {
    local pid start
    read -r pid start 2>/dev/null <"$state/$1.pid" || return 1
    [[ $(started_at "$pid") == "$start" ]] && printf '%s\n' "$pid"
}

stopped() { ! running "$1" >/dev/null; }

# stop NAME [SIGNAL]: end it, first politely, and wait until it is gone.
stop() {
    local pid
    if pid=$(running "$1"); then
        kill -s "${2:-TERM}" "$pid" 2>/dev/null || true
        if ! wait_for 10 stopped "$1"; then
            kill -s KILL "$pid" 2>/dev/null || true
            wait_for 10 stopped "$1" || die "process $pid ($1) does not end"
        fi
    fi
    rm -f "$state/$1.pid"
}

# One cluster is changed by one script at a time. Whatever is started later must close descriptor 9.
lock() {
    until [[ $state.lock -ef /dev/fd/9 ]]; do # cluster-down removes the file, perhaps while we waited for it
        exec 9>"$state.lock"
        flock --wait 900 9 || die "another make cluster or cluster-down has been at work for 15 minutes"
    done
}
