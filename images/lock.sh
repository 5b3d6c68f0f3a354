#!/bin/sh
# Resolve the images' locks again (`make lock` calls this): hashed, without the address of any package registry.
# What all stage images share is the scorer's lock, one layer for all; trainer and generator add to it.
set -eu
cd "$(dirname "$0")/.."

compile() { # compile OUT OPTIONS AND INPUTS...
    out=$1
    shift
    # shellcheck disable=SC2086 # the options are lists
    ${UV:-.venv/bin/uv} pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --generate-hashes --no-emit-index-url --no-header --quiet ${ARGS:-} "$@" --output-file "$out"
}

same="--constraints requirements/test.txt"
init=images/base/init.in
compile images/base/tools.txt $same images/base/tools.in
compile images/controller/requirements.txt $same pyproject.toml $init
compile images/scorer/requirements.txt $same pyproject.toml $init --extra train --extra answers
compile images/evaluator/requirements.txt $same pyproject.toml $init --extra train --extra answers
compile images/trainer/requirements.txt $same pyproject.toml $init images/trainer/build.in \
    --extra train --extra deepspeed
# The legacy image shares what it can; what its transformers asks for differs. DeepSpeed's own lock has what it adds.
compile images/legacy/requirements.txt --constraints requirements/cli.txt pyproject.toml $init \
    images/legacy/legacy.in --extra answers
compile images/legacy/requirements-deepspeed.txt --constraints images/legacy/requirements.txt images/legacy/build.in
for variant in cpu gpu; do
    # What is there already is preferred: where the engine does not object, it shares the other stages' versions.
    out=images/generator/requirements-$variant.txt
    [ -f "$out" ] || cp images/scorer/requirements.txt "$out"
    compile "$out" --override images/generator/overrides.txt pyproject.toml $init \
        "images/generator/engine-$variant.in" --extra train --extra answers
done
