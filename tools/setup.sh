#!/bin/sh
# Set up .venv from one of the locks: `sh tools/setup.sh demo` (or test, or cli). Instant when there is nothing to do.
#
# uv comes by pip from a hashed lock, everything else by uv from a hashed lock; nothing is downloaded at build time.
# A stamp named after the contents of what was installed is written last. A set-up that was interrupted leaves
# `unfinished` behind, and the next one starts afresh; so does one after the project was moved, because an
# environment holds its own path.
set -eu

cd "$(dirname "$0")/.."
lock=${1:?which lock: demo, test or cli}
here=$(pwd -P)
python=.venv/bin/python
stamps=.venv/.stamps

say() { printf '%s\n' "$*" >&2; }
fail() { say "set-up: $*"; exit 12; }

[ -f "requirements/$lock.txt" ] || fail "there is no requirements/$lock.txt; expected one of: demo, test, cli"

sum() { cat "$@" | cksum | tr ' ' '-'; }
base=$(sum requirements/bootstrap.txt)
key=$(sum requirements/bootstrap.txt "requirements/$lock.txt" pyproject.toml)
stamp=$stamps/$lock-$key

if [ -f "$stamp" ] && [ ! -e $stamps/unfinished ] && [ "$(cat $stamps/home)" = "$here" ] && [ -x $python ]; then
    exit 0
fi

fits() { # a Python that every package in the locks has a build for
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>&1) || found="no python3"
    fail "expected Python 3.11 to 3.14, found $found. Install one, or name one: make PYTHON=/path/to/python3.12 ..."
}

case "$(uname -s)-$(uname -m)-$lock" in
    *-cli) ;; # pure enough to run anywhere
    Linux-x86_64-* | Linux-aarch64-* | Linux-arm64-* | Darwin-arm64-*) ;;
    *) fail "PyTorch has builds for Linux (x86_64, arm64) and macOS 14 or newer on Apple silicon, found" \
        "$(uname -s) on $(uname -m). Use one of those, or 'sh tools/setup.sh cli' for mstarctl alone." ;;
esac

waited=0
while pid=$(cat $stamps/unfinished 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do
    [ $waited -gt 0 ] || say "set-up: another one is at work (process $pid); waiting for it"
    [ $waited -lt 1800 ] || fail "process $pid has been at it for half an hour. End it, or remove .venv, and try again."
    sleep 1
    waited=$((waited + 1))
done
[ ! -f "$stamp" ] || [ -e $stamps/unfinished ] || exit 0

if [ -e $stamps/unfinished ]; then
    say "set-up: the last one was interrupted; starting afresh"
    rm -rf .venv
elif [ -d $stamps ] && [ "$(cat $stamps/home 2>/dev/null)" != "$here" ]; then
    say "set-up: the project was moved; starting afresh"
    rm -rf .venv
elif [ -e .venv ] && ! fits $python; then
    say "set-up: .venv has no working Python 3.11 to 3.14; starting afresh"
    rm -rf .venv
fi

if [ ! -f "$stamps/bootstrap-$base" ]; then
    from=$(find_python)
    "$from" -c 'import ensurepip, venv' 2>/dev/null || fail "$from cannot make virtual environments (no ensurepip)." \
        "On Debian or Ubuntu: sudo apt install python3-venv"
    say "set-up: .venv with $("$from" --version)"
    mkdir -p $stamps
    printf '%s\n' "$here" >$stamps/home
    echo $$ >$stamps/unfinished
    if [ -x $python ]; then
        $python -m pip --version >/dev/null 2>&1 || $python -m ensurepip >/dev/null # made by uv: it has no pip
    else
        "$from" -m venv .venv
    fi
    PIP_USER=0 $python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
    : >"$stamps/bootstrap-$base"
fi

echo $$ >$stamps/unfinished
case $lock in
    cli) size="" ;;
    *) size=" (at first a few GB, mostly PyTorch; later from the cache)" ;;
esac
say "set-up: installing requirements/$lock.txt$size"
if [ -t 2 ]; then loud=; else loud=--quiet; fi # progress for a person, nothing in a log
# Where Python is told not to keep what it compiles, every process would compile PyTorch again: seconds at each start.
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then compile=--compile-bytecode; else compile=; fi
.venv/bin/uv pip install $loud $compile --python $python --require-hashes --no-build-isolation --requirement "requirements/$lock.txt"
.venv/bin/uv pip install --quiet --python $python --no-deps --no-build-isolation --editable .
rm -f "$stamps/$lock"-*
: >"$stamp"
rm -f $stamps/unfinished
