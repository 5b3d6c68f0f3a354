#!/usr/bin/env bash
# `make cluster`: a Kubernetes of one node on this machine, an S3 server, and the project's images in it. Safe to call
# again: what runs is kept, what is half-way is cleaned up first.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$harness/check.sh"
"$harness/packages.sh"
tools=$("$harness/tools.sh")
touch "$tools"
find "$cache" -mindepth 1 -maxdepth 1 -name 'tools-*' -mtime +30 -exec rm -rf {} + # nobody has asked for it in a month
mkdir -p "$(dirname "$state")"
lock

kubectl() { "$tools/kubectl" --kubeconfig "$state/kubeconfig" "$@"; }
node_ready() { kubectl wait --for=condition=Ready node/node-1 --timeout=1s; }
account_ready() { kubectl get serviceaccount default; }
node_decided() { [[ -e $state/started || -e $state/failed ]] || stopped node; }

write_settings() {
    cat >"$state/containerd.toml" <<K
version = 2
root = "$state/containerd"
state = "/run/containerd"
[grpc]
  address = "$state/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  sandbox_image = "localhost/mstar-kit:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
K
    cat >"$state/cni/10-mstar.conflist" <<K
{"cniVersion": "0.4.0", "name": "mstar", "plugins": [
  {"type": "bridge", "bridge": "mstar0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_network"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
K
    cat >"$state/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$state/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
featureGates: {KubeletInUserNamespace: true} # what it may not set on this machine, it leaves alone
podLogsDir: $state/pod-logs
volumePluginDir: $state/kubelet/plugins
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $state/pki/ca.crt}}
authorization: {mode: AlwaysAllow}
clusterDNS: [$node_address]
clusterDomain: cluster.local
resolvConf: /dev/null
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100 # an image that was loaded by hand could not be pulled again
K
    cat >"$state/Corefile" <<K
.:53 {
  bind $node_address
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $state/kubeconfig
    pods insecure
    ttl 1
  }
}
K
}

make_cgroups() { # one in every hierarchy that there is
    local controller
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        mkdir -p "/sys/fs/cgroup/$cgroup"
    else
        for controller in /sys/fs/cgroup/*/; do
            [[ $controller == */unified/ ]] || mkdir -p "$controller$cgroup"
        done
        # A set of cores and memory nodes is not inherited, and without one no process may enter.
        for what in cpus mems; do
            [[ ! -e /sys/fs/cgroup/cpuset/cpuset.$what ]] ||
                cat "/sys/fs/cgroup/cpuset/cpuset.$what" >"/sys/fs/cgroup/cpuset/$cgroup/cpuset.$what"
        done
    fi
}

start_node() {
    umask 022
    mkdir -p "$state"/{log,cni,var-lib,var-log,pod-logs}
    printf '%s\n' "$tools" >"$state/tools"
    cgroup=mstar-$(printf '%s' "$state" | cksum | cut -d' ' -f1)
    printf '%s\n' "$cgroup" >"$state/cgroup"
    # The kubelet sets these for the whole machine; cluster-down sets them back.
    for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
        [[ ! -r /proc/sys/$name ]] || printf '%s %s\n' "$name" "$(<"/proc/sys/$name")"
    done >"$state/sysctls"
    "$harness/certificates.sh"
    write_settings
    make_cgroups

    setsid unshare --mount --net --pid --fork --kill-child=KILL --mount-proc --propagation private \
        "$harness/node.sh" "$tools" >"$state/log/node.log" 2>&1 </dev/null 9>&- &
    remember node $!
    wait_for 10 pgrep -P "$(running node)" || die "the node did not start: $(tail -n 5 "$state/log/node.log")"
    remember node-1 "$(pgrep -P "$(running node)")"

    setsid "$tools/kit" forward "127.0.0.1:$api_port" "/proc/$(running node-1)/ns/net" "$node_address:$api_port" \
        >"$state/log/api-door.log" 2>&1 </dev/null 9>&- &
    remember api-door $!
    wait_for 150 node_decided || true
    [[ ! -e $state/failed ]] || die "the node failed: $(<"$state/failed")"
    [[ -e $state/started ]] || die "the node failed: $(tail -n 5 "$state/log/node.log")"
}

up_to_date() {
    running node && running api-door && [[ -e $state/started && ! -e $state/failed ]] &&
        [[ $(<"$state/tools") == "$tools" ]] && node_ready
}
if ! up_to_date >/dev/null 2>&1; then
    if [[ -e $state ]]; then
        "$harness/down.sh" --locked
    fi
    say "starting Kubernetes"
    begun=$SECONDS
    start_node
    "$harness/load-kit.sh"
    wait_for 120 node_ready || die "the node is not ready after two minutes; see $state/log/kubelet.log"
    wait_for 60 account_ready || die "no default service account after a minute; see $state/log/controller-manager.log"
    say "the node is ready after $((SECONDS - begun)) s"
fi
"$harness/s3-start.sh"

# What is loaded is what tools/images.sh says it built, one name a line.
touch "$state/images"
needed_gigabytes=20
if [[ ${MSTAR_CLUSTER_IMAGES:-yes} != no && -x $project/tools/images.sh ]]; then
    if [[ ! -s $state/loaded ]]; then # builder and node hold every layer each
        free=$(df --output=avail --block-size=1G "$state" | tail -n 1)
        ((free >= needed_gigabytes)) || die "building and loading the images takes up to $needed_gigabytes GB of disk, and ${free// /} are free for $state"
    fi
    begun=$SECONDS
    # No registry is needed: the base is made of Debian's own packages.
    base=${BASE:-$("$project/images/base/debootstrap.sh")}
    BASE=$base BUILDER=${BUILDER:-buildah} "$project/tools/images.sh" >"$state/images.built"
    say "the images are built after $((SECONDS - begun)) s"
    begun=$SECONDS
    xargs "$harness/load-images.sh" <"$state/images.built"
    mv "$state/images.built" "$state/images"
    say "the images are loaded after $((SECONDS - begun)) s"
fi

write_env() {
    local name
    {
        echo "# What the tests and a person need to know: \`. $state/env\`"
        while read -r name value; do
            printf 'export %s=%q\n' "$name" "$value"
        done <<K
MSTAR_CLUSTER_DIR $state
MSTAR_CLUSTER_API_PORT $api_port
MSTAR_CLUSTER_S3_PORT $s3_port
MSTAR_TEST_KUBECONFIG $state/kubeconfig
MSTAR_TEST_KUBECTL $tools/kubectl
MSTAR_TEST_HELM $tools/helm
MSTAR_TEST_HELM3 $tools/helm3
MSTAR_TEST_HELM_UNITTEST $tools/helm-unittest
MSTAR_TEST_S3_ENDPOINT http://127.0.0.1:$s3_port
MSTAR_TEST_S3_POD_ENDPOINT http://$node_address:7070
MSTAR_TEST_S3_CREDENTIALS $state/s3-credentials
MSTAR_TEST_S3_START $harness/s3-start.sh
MSTAR_TEST_S3_STOP $harness/s3-stop.sh
MSTAR_TEST_KIT localhost/mstar-kit:1
MSTAR_TEST_IMAGES $(xargs <"$state/images")
K
    } >"$state/env"
}

write_env
cat >&2 <<K

Kubernetes $("$tools/kubectl" --kubeconfig "$state/kubeconfig" get node node-1 -o jsonpath='{.status.nodeInfo.kubeletVersion}') runs in $state.
  use it        . $state/env; export KUBECONFIG=\$MSTAR_TEST_KUBECONFIG
  kubectl       $tools/kubectl
  S3            http://127.0.0.1:$s3_port, from pods http://$node_address:7070; keys in $state/s3-credentials
  images        $(xargs <"$state/images")
  logs          $state/log
  end it        make cluster-down
K
