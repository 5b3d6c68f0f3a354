#!/usr/bin/env bash
# Build Kubernetes, Helm and the rest from the pinned modules in tools/, and print the folder they lie in. It is named
# after everything that decides what is in it, so a second call has nothing to do; one that was interrupted goes on.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kubernetes=v$(sed -n 's/^\tk8s.io\/kubernetes v\([^ ]*\).*/\1/p' "$harness/tools/kubernetes/go.mod")

key=$({
    go env GOVERSION GOARCH
    cd "$harness" && cat tools.sh kit/*.go kit/go.mod tools/*/go.mod tools/*/go.sum
} | sha256sum | cut -c1-16)
tools=$cache/tools-$key

if [[ ! -e $tools/complete ]]; then
    mkdir -p "$tools"
    exec 8>"$tools/lock"
    flock --nonblock 8 || { say "another build is at work; waiting for it"; flock 8; }
fi
if [[ ! -e $tools/complete ]]; then
    export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -mod=readonly"
    # build FOLDER NAME PACKAGE [LINKER FLAGS]
    build() {
        [[ ! -x $tools/$2 ]] || return 0
        local start=$SECONDS try
        for try in 1 2 3; do # a module proxy may stutter
            if (cd "$harness/$1" && go build -ldflags "-s -w ${4:-}" -o "$tools/$2.partial" "$3" 8>&-) >&2; then
                mv "$tools/$2.partial" "$tools/$2"
                say "built $2 in $((SECONDS - start)) s"
                return 0
            fi
            say "building $2 failed (try $try of 3)"
            sleep $((try * 5))
        done
        die "could not build $2"
    }
    say "building the tools in $tools (about a quarter of an hour on two cores the first time)"
    build kit kit .
    for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        build tools/kubernetes "$name" "k8s.io/kubernetes/cmd/$name" "-X k8s.io/component-base/version.gitVersion=$kubernetes"
    done
    build tools/versitygw versitygw github.com/versity/versitygw/cmd/versitygw
    build tools/coredns coredns github.com/coredns/coredns
    build tools/helm helm helm.sh/helm/v4/cmd/helm
    build tools/helm3 helm3 helm.sh/helm/v3/cmd/helm
    build tools/helm-unittest helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest
    : >"$tools/complete"
fi
printf '%s\n' "$tools"
