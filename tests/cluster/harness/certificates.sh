#!/usr/bin/env bash
# Make a certificate authority, the API server's and its client's certificates, the key that signs service accounts'
# tokens, and the administrator's token and kubeconfig. All in the state folder, all new for every cluster.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

umask 077
mkdir -p "$state/pki"
cd "$state/pki"
days=30

# certificate NAME SUBJECT EXTENSION...
certificate() {
    local name=$1 subject=$2
    shift 2
    quietly openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out "$name.csr" -subj "$subject"
    printf '%s\n' "$@" >"$name.ext"
    quietly openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$name.crt" -days $days -extfile "$name.ext"
}

quietly openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days $days -subj /CN=mstar-cluster
names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
certificate apiserver /CN=kube-apiserver "subjectAltName=$names,IP:127.0.0.1,IP:${service_network%.*}.1,IP:$node_address"
certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client extendedKeyUsage=clientAuth
quietly openssl genrsa -out service-accounts.key 2048
quietly openssl rsa -in service-accounts.key -pubout -out service-accounts.pub

token=$(openssl rand -hex 32)
echo "$token,admin,admin,system:masters" >tokens.csv
cat >"$state/kubeconfig" <<K
apiVersion: v1
kind: Config
clusters:
- name: mstar
  cluster:
    server: https://127.0.0.1:$api_port
    certificate-authority-data: $(openssl base64 -A -in ca.crt)
users:
- name: admin
  user:
    token: $token
contexts:
- name: mstar
  context: {cluster: mstar, user: admin}
current-context: mstar
K
