#!/usr/bin/env bash
# Start the S3 server, and the door to it from this machine; nothing to do when both run. Tests call this, too.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=$(<"$state/tools")
node=$(running node-1) || die "the cluster does not run: make cluster"

if [[ ! -e $state/s3-credentials ]]; then
    (
        umask 077
        cat >"$state/s3-credentials" <<K
[default]
aws_access_key_id = mstar-$(openssl rand -hex 4)
aws_secret_access_key = $(openssl rand -hex 20)
K
    )
fi
credential() { sed -n "s/^$1 = //p" "$state/s3-credentials"; }

if ! running s3 >/dev/null; then
    mkdir -p "$state/s3"
    ROOT_ACCESS_KEY=$(credential aws_access_key_id) ROOT_SECRET_KEY=$(credential aws_secret_access_key) \
        setsid nsenter --target "$node" --net "$tools/versitygw" --quiet --port "$node_address:7070" posix "$state/s3" \
        >>"$state/log/s3.log" 2>&1 </dev/null 9>&- &
    remember s3 $!
fi
if ! running s3-door >/dev/null; then
    setsid "$tools/kit" forward "127.0.0.1:$s3_port" "/proc/$node/ns/net" "$node_address:7070" \
        >>"$state/log/s3-door.log" 2>&1 </dev/null 9>&- &
    remember s3-door $!
fi
"$tools/kit" fetch "http://127.0.0.1:$s3_port/" >/dev/null || die "the S3 server does not answer: $(tail -n 3 "$state/log/s3.log")"
