#!/usr/bin/env bash
# kubectl, a real kube-apiserver and etcd on one side, a node's kubelet API on the other, proxy-server and proxy-agent in
# between; docs/end-to-end.md says what is checked. Each side is a network namespace; one cable joins them, over which the
# agent reaches the server, and nothing has a route to the node's and the pods' addresses. Needs root. The first run
# builds kube-apiserver, etcd and kubectl, ten minutes of two cores, and keeps them outside of the tree.
#
# usage: scripts/e2e-kubernetes.sh [OPTIONS]
#
# --quick           less data: two minutes for a front end and a peer
# --front LIST      of grpc-uds, connect-uds, connect-tls; default: all of them
# --peer LIST       of ours and go, the Go reference's pair, whose failures are shown and do not count; default: ours
# --link NAME       an emulated link for the cable, see docs/links.md, for instance edge-50ms-1
# --tokens          agents show service account tokens, which proxy-server has kube-apiserver review, instead of certificates
# --seed NUMBER     of the link's luck; default 1
# --tcp NAME        TCP's congestion control in both namespaces, with --link; default: the machine's
# --quic NAME       this project's --quic-congestion-control; default: its own
# --only TEXT       only the checks that have this in their name
# --ours FOLDER     with the proxy-server and proxy-agent in FOLDER instead of building them
# --write-docs      writes the table into docs/end-to-end.md: of the front ends, or of a link, for which it has a place
# --break WHAT      breaks something on purpose, so that checks must fail; docs/end-to-end.md says what there is
# --build-only      builds what a run needs, and runs nothing
# --keep            keeps the folder with logs; it is kept anyway when something fails
set -euo pipefail
cd "$(dirname "$0")/.."

front=grpc-uds,connect-uds,connect-tls peer=ours link= seed=1 tcp= quic= only= ours= break= keep= build_only= quick=() tokens=() document=()
said=scripts/e2e-kubernetes.sh
while (($#)); do
    case $1 in
        --quick) quick=(--quick) said+=" $1" ;;
        --tokens) tokens=(--tokens) said+=" $1" ;;
        --keep) keep=1 ;;
        --build-only) build_only=1 ;;
        --write-docs) document=(--document docs/end-to-end.md) said+=" $1" ;;
        --front | --peer | --link | --seed | --tcp | --quic | --only | --ours | --break)
            (($# > 1)) || { echo "e2e-kubernetes: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            # Where the programs are is nobody's business.
            [ "$1" = --ours ] || said+=" $1 $2"
            shift
            ;;
        -h | --help) sed -n '2,25s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "e2e-kubernetes: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo "e2e-kubernetes: network namespaces need root" >&2; exit 1; }
scripts/need.sh cargo cc ip nft tar
ulimit -n "$(ulimit -Hn)"

target=${CARGO_TARGET_DIR:-$PWD/target}
programs=(etcd kubectl kube-apiserver kubelet workload e2e)
[[ ,$peer, != *,go,* ]] || programs+=(proxy-server proxy-agent)
scripts/go-peers.sh "${programs[@]}"
if [[ ,$peer, == *,ours,* && -z $ours ]]; then
    ours=$target/release
    cargo build --release --locked -p konnectivity-server -p konnectivity-agent --bin proxy-server --bin proxy-agent
fi
[ -z "$link" ] || cargo build --release --locked -p konnectivity-interop --bin link
[ -z "$build_only" ] || exit 0

work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-e2e.XXXXXX")
name=konnectivity-e2e-$$ passed=
cleanup() {
    for namespace in "$name-site" "$name-cloud"; do
        [ -e "/run/netns/$namespace" ] || continue
        # Only what an interrupted run has left.
        ip netns pids "$namespace" | xargs --no-run-if-empty kill -KILL 2>/dev/null || true
        ip netns delete "$namespace" || true
    done
    if [ -n "$passed" ] && [ -z "$keep" ]; then
        rm -rf "$work"
    else
        echo "logs are in $work"
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if ((${#document[@]})); then
    reference=$(sed -n 's/^.*apiserver-network-proxy v/v/p' interop/go/go.mod | head -n 1)
    kubernetes=$(basename "$(scripts/go-peers.sh --kubernetes-folder)")
    part="front ends"
    [ -z "$link" ] || part="$link, ${quic:-default} and ${tcp:-default}"
    document+=(--document-part "$part" --made-by "Made by \`$said\` on $(date -u '+%Y-%m-%d %H:%M') UTC, $(nproc) cores; $kubernetes, the reference ${reference%% *}.")
fi
beside=()
if [ -n "$link" ]; then
    beside=("$target/release/link" "$link" --seed "$seed")
    [ -z "$tcp" ] || beside+=(--congestion-control "$tcp")
    beside+=(--)
else
    export LINK_SITE=$name-site LINK_CLOUD=$name-cloud LINK_CLOUD_IPV4=10.99.0.2
    for namespace in "$LINK_SITE" "$LINK_CLOUD"; do
        ip netns add "$namespace"
        ip -n "$namespace" link set lo up
    done
    ip link add site netns "$LINK_SITE" type veth peer name cloud netns "$LINK_CLOUD"
    ip -n "$LINK_SITE" address add 10.99.0.1/24 dev site
    ip -n "$LINK_CLOUD" address add "$LINK_CLOUD_IPV4/24" dev cloud
    ip -n "$LINK_SITE" link set site up
    ip -n "$LINK_CLOUD" link set cloud up
fi
# shellcheck disable=SC2016 # the variables are set by `link`, too
"${beside[@]}" bash -c 'exec ip netns exec "$LINK_CLOUD" "$@" --site "$LINK_SITE" --cloud-address "$LINK_CLOUD_IPV4"' e2e \
    "$target/go/e2e" --kubernetes "$(scripts/go-peers.sh --kubernetes-folder)" --kubelet "$target/go/kubelet" \
    --workload "$target/go/workload" --ours "$ours" --go "$target/go" --front "$front" --peer "$peer" --only "$only" --quic "$quic" \
    --patience $((${#link} ? 3 : 1)) --work "$work" "${quick[@]}" "${tokens[@]}" --break "$break" "${document[@]}"
passed=1
