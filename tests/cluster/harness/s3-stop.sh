#!/usr/bin/env bash
# Stop the S3 server as a crash would (its data stay), and close the door to it: connections are refused.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
stop s3-door KILL
stop s3 KILL
