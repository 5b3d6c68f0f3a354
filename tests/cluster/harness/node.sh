#!/usr/bin/env bash
# Process 1 of the node: it has its own mounts, network and process numbers, so everything it starts, mounts and
# configures is gone when it is. Told the folder of the tools; writes `started` or `failed` into the state folder.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=$1

cd "$state"
mount --make-rshared /
# What has fixed names inside the node: sockets, network namespaces, CNI's notes, the pods' log links.
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind var-lib /var/lib
mount --bind var-log /var/log

ip link set lo up
# With an address of its own: else a bridge takes the lowest of its ports', and each pod that comes or goes would cut the
# others off from the node until they have asked for its address again, which takes them up to half a minute.
ip link add mstar0 address 0a:58:0a:f4:00:01 type bridge
ip addr add "$node_address/24" dev mstar0
ip link set mstar0 up
ip route add "$service_network" dev mstar0 # so that kube-proxy's rules see what this node itself sends there
echo 1 >/proc/sys/net/ipv4/ip_forward

api_ready() { "$tools/kubectl" --kubeconfig kubeconfig get --raw /readyz; }

declare -A names
fail() {
    printf '%s\n' "$*" >failed
    exit 1
}
start() { # start NAME COMMAND...
    local name=$1
    shift
    "$@" >"log/$name.log" 2>&1 </dev/null &
    names[$!]=$name
}

start etcd etcd --data-dir etcd --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380

start containerd containerd --config containerd.toml

start apiserver "$tools/kube-apiserver" \
    --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --advertise-address="$node_address" --secure-port="$api_port" \
    --service-cluster-ip-range="$service_network" --allow-privileged \
    --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
    --kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
    --kubelet-preferred-address-types=InternalIP \
    --token-auth-file=pki/tokens.csv --authorization-mode=Node,RBAC \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file=pki/service-accounts.pub --service-account-signing-key-file=pki/service-accounts.key
wait_for 120 api_ready || fail "the API server did not become ready within two minutes: $(tail -n 3 log/apiserver.log)"

start controller-manager "$tools/kube-controller-manager" --kubeconfig=kubeconfig --leader-elect=false \
    --root-ca-file=pki/ca.crt --service-account-private-key-file=pki/service-accounts.key \
    --use-service-account-credentials
start scheduler "$tools/kube-scheduler" --kubeconfig=kubeconfig --leader-elect=false
start kubelet "$tools/kubelet" --kubeconfig=kubeconfig --config=kubelet.yaml --root-dir="$state/kubelet" \
    --cert-dir="$state/kubelet/pki" --hostname-override=node-1 --node-ip="$node_address"
# Pods share one bridge, so an answer would not come back through the rules that changed its request: hence masquerade.
start proxy "$tools/kube-proxy" --kubeconfig=kubeconfig --proxy-mode=iptables --masquerade-all \
    --hostname-override=node-1 --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
start dns "$tools/coredns" -conf Corefile
: >started

# Collect orphans, and say so when one of the parts ends: a cluster that limps is worse than none.
while :; do
    wait -n -p ended || true
    [[ -z ${names[${ended:-0}]:-} ]] || fail "${names[$ended]} ended: $(tail -n 3 "log/${names[$ended]}.log")"
done
