#!/usr/bin/env bash
# What a real kube-apiserver says of deploy/: it starts with the egress selector's file, takes each manifest (a dry run with
# strict validation), and gives the programs, by the rights of one of them and no others, all that they ask for: leases,
# reviews of tokens, addresses of nodes. Needs root, for a network of its own. The first run builds kube-apiserver, etcd and
# kubectl, ten minutes of two cores, and keeps them outside of the tree; then it takes less than a minute.
#
# usage: scripts/deploy-api.sh
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "deploy-api: a network of its own needs root" >&2; exit 1; }
    scripts/need.sh cargo cc curl ip unshare
    scripts/go-peers.sh --quiet etcd kube-apiserver kubectl
    cargo build --quiet --locked -p konnectivity-server -p konnectivity-agent -p konnectivity-interop --bin proxy-server --bin proxy-agent --bin certs
    exec unshare --net "$0" --inside
fi

programs=${CARGO_TARGET_DIR:-$PWD/target}/debug kubernetes=$(scripts/go-peers.sh --kubernetes-folder)
work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-deploy-api.XXXXXX")
pids=()
cleanup() {
    # Without etcd, kube-apiserver would take minutes to stop; nothing of theirs is kept.
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf 'deploy-api: %s\n' "$*"; }
fail() { echo "deploy-api: $*" >&2; tail -n 15 "$work"/*.log >&2; exit 1; }
until_true() { # WHAT, COMMAND
    local what=$1
    shift
    for _ in $(seq 600); do
        "$@" >"$work/last" 2>&1 && return
        for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || fail "a program has ended while this was waited for: $what"; done
        sleep 0.1
    done
    fail "in a minute it did not come to this: $what; the last answer: $(head -c 500 "$work/last")"
}
start() { # NAME, COMMAND
    "${@:2}" >"$work/$1.log" 2>&1 &
    pids+=($!)
}
kubeconfig() { # FILE, TOKEN
    cat >"$work/$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $work/pki/ca.crt}}]
users: [{name: u, user: {token: $2}}]
contexts: [{name: c, context: {cluster: c, user: u, namespace: kube-system}}]
current-context: c
YAML
}
kubectl() { "$kubernetes/kubectl" --kubeconfig="$work/admin.conf" --cache-dir="$work/cache" "$@"; }
has() { curl --silent --fail --max-time 5 "http://127.0.0.1:$1" | grep --quiet --fixed-strings -- "$2"; }

ip link set lo up
ip address add 192.0.2.1/32 dev lo
"$programs/certs" "$work/pki" >/dev/null
echo 'admin-token,admin,admin,system:masters' >"$work/tokens.csv"
kubeconfig admin.conf admin-token
say "starting etcd and kube-apiserver"
start etcd "$kubernetes/etcd" --data-dir="$work/etcd" --unsafe-no-fsync --log-level=error
start kube-apiserver "$kubernetes/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --advertise-address=192.0.2.1 \
    --endpoint-reconciler-type=none --tls-cert-file="$work/pki/server.crt" --tls-private-key-file="$work/pki/server.key" \
    --token-auth-file="$work/tokens.csv" --authorization-mode=RBAC --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$work/pki/server.crt" --service-account-signing-key-file="$work/pki/server.key" \
    --service-cluster-ip-range=10.96.0.0/16 --disable-admission-plugins=ServiceAccount \
    --egress-selector-config-file=deploy/kube-apiserver/egress-selector-grpc.yaml
until_true "kube-apiserver is ready, with its own roles" kubectl get namespace kube-system
until_true "kube-apiserver is ready" kubectl get --raw /readyz

say "manifests"
# What Prometheus Operator has; deploy.sh looks at the fields.
for kind in ServiceMonitor PrometheusRule; do
    plural=${kind,,}s
    kubectl create --filename=- >/dev/null <<YAML
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: $plural.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: $kind, plural: $plural}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
YAML
done
until_true "the kinds of Prometheus Operator are there" kubectl get servicemonitors,prometheusrules
for file in deploy/manifests/*.yaml; do
    kubectl apply --dry-run=server --validate=strict --filename="$file" >"$work/applied" 2>&1 || fail "$file: $(cat "$work/applied")"
    say "$(basename "$file"): $(wc -l <"$work/applied") objects"
done

say "rights"
kubectl apply --filename=deploy/manifests/several-servers.yaml >/dev/null
kubectl create --filename=- >/dev/null <<YAML
{apiVersion: v1, kind: Node, metadata: {name: node-7}, status: {addresses: [{type: InternalIP, address: 192.0.2.7}]}}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: konnectivity-proxy-server-dead, namespace: kube-system, labels: {k8s-app: konnectivity-server}}
spec: {holderIdentity: dead, leaseDurationSeconds: 2, renewTime: "2020-01-01T00:00:00.000000Z"}
YAML
kubeconfig server.conf "$(kubectl --namespace=kube-system create token konnectivity-server)"
kubeconfig agent.conf "$(kubectl --namespace=kube-system create token konnectivity-agent)"
kubectl --namespace=kube-system create token konnectivity-agent --audience=system:konnectivity-server \
    --bound-object-kind=Node --bound-object-name=node-7 >"$work/agent.token"
start server "$programs/proxy-server" --server-id=server-1 --uds-name="$work/socket" --server-port=0 --cluster-cert="$work/pki/server.crt" \
    --cluster-key="$work/pki/server.key" --agent-namespace=kube-system --agent-service-account=konnectivity-agent \
    --authentication-audience=system:konnectivity-server --agent-identifier-policy=own-node --kubeconfig="$work/server.conf" \
    --enable-lease-controller --lease-namespace=kube-system --lease-duration=4s --lease-renew-interval=1s --lease-gc-interval=1s
server=${pids[-1]}
start agent "$programs/proxy-agent" --proxy-server-host=127.0.0.1 --ca-cert="$work/pki/ca.crt" --kubeconfig="$work/agent.conf" \
    --service-account-token-path="$work/agent.token" --agent-identifiers='host=node-7&ipv4=192.0.2.7' --count-server-leases --lease-namespace=kube-system
until_true "the server's lease is renewed" has 8092/metrics 'lease_renewals_total{http_status_code="200",reason=""} 3'
until_true "the lease of a dead server is deleted" has 8092/metrics 'culled_leases_count 1'
until_true "the agent's token and node were looked at" has 8092/metrics 'agent_authentications_total{carrier="quic",result="accepted"} 1'
until_true "the agent has counted leases" has 8093/metrics 'known_server_count 1'
until_true "the agent watches leases" has 8093/metrics 'lease_watches_total{http_response_code="200"'
kubectl --namespace=kube-system get lease konnectivity-proxy-server-server-1 >/dev/null
kill -TERM "$server"
wait "$server" || fail "the server did not drain"
unset 'pids[-2]'
until_true "the server's lease is deleted" bash -c "! '$kubernetes/kubectl' --kubeconfig='$work/admin.conf' get lease konnectivity-proxy-server-server-1"
! grep --quiet 'does not let the user' "$work/server.log" "$work/agent.log" || fail "a right is missing"

# And nothing besides.
account=system:serviceaccount:kube-system:konnectivity
may_not() { # ACCOUNT, VERB AND RESOURCE
    [ "$(kubectl auth can-i --as="$1" --all-namespaces "${@:2}" 2>/dev/null)" = no ] || fail "$1 may ${*:2}"
}
for who in server agent; do
    for what in "get secrets" "get pods" "create pods" "list nodes" "update nodes" "get configmaps" "create subjectaccessreviews"; do
        read -ra words <<<"$what"
        may_not "$account-$who" "${words[@]}"
    done
done
may_not "$account-agent" create tokenreviews.authentication.k8s.io
for verb in get create update delete; do
    [ "$(kubectl auth can-i --as="$account-agent" --namespace=kube-system "$verb" leases.coordination.k8s.io 2>/dev/null)" = no ] ||
        fail "agents may $verb leases"
done
say "all is well"
