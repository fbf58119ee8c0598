#!/usr/bin/env bash
# Dials through proxy-server and proxy-agent with the egress dialer of a real kube-apiserver, over the Unix socket and
# over TCP with mutual TLS: GET, targets that speak first, refused dials, half-close. See interop/go/egress/main.go.
#
# usage: scripts/apiserver-dialer.sh [--release] [--with-reference] [-- OPTIONS OF THE DIALER]
#
# --release          with release builds of proxy-server and proxy-agent instead of debug ones
# --with-reference   the Go reference pair besides, for the record: what fails there does not count
set -euo pipefail
cd "$(dirname "$0")/.."

profile=debug reference=
while (($#)); do
    case $1 in
        --release) profile=release ;;
        --with-reference) reference=1 ;;
        --) shift; break ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "apiserver-dialer: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done
say() { printf '\n== %s\n' "$*"; }
scripts/need.sh cargo cc curl python3 sha256sum

say "building"
target=${CARGO_TARGET_DIR:-$PWD/target}
ours=$target/$profile go=$target/go source=interop/go/egress
cargo build --locked --profile "${profile/debug/dev}" -p konnectivity-server -p konnectivity-agent -p konnectivity-interop \
    --bin proxy-server --bin proxy-agent --bin certs
[ -z "$reference" ] || scripts/go-peers.sh
stamp=$(cat "$source"/{go.mod,go.sum,main.go} | sha256sum)
if ! [ -x "$go/egress-dialer" ] || [ "$(cat "$go/egress-dialer.stamp" 2>/dev/null)" != "$stamp" ]; then
    if ! command -v go >/dev/null; then
        wanted=$(sed -n 's/^go //p' "$source/go.mod")
        echo "apiserver-dialer: no 'go' in PATH; install a Go toolchain, $wanted or newer (any since 1.21 fetches $wanted itself; Debian: apt-get install golang-go)" >&2
        exit 1
    fi
    mkdir -p "$go"
    (cd "$source" && CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -o "$go/egress-dialer" .)
    echo "$stamp" >"$go/egress-dialer.stamp"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-dialer.XXXXXX")
pki=$work/pki pids=()
stop() {
    ((${#pids[@]})) || return 0
    kill "${pids[@]}" 2>/dev/null || true
    # The reference's agent lives on after its first SIGTERM until it is killed.
    for _ in $(seq 50); do
        kill -0 "${pids[@]}" 2>/dev/null || break # true if any is alive
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    pids=()
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$ours/certs" "$pki"

egress_configuration() { # TRANSPORT: the file for kube-apiserver's --egress-selector-config-file
    cat <<YAML
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: $1
YAML
}

# Starts a pair of programs and runs the dialer against it: FOLDER OF THE PROGRAMS, uds or tcp, OPTIONS OF THE DIALER
run() {
    local programs=$1 over=$2 front agents health admin agent_health agent_admin frontend transport ready= result=0
    shift 2
    read -r front agents health admin agent_health agent_admin < <(scripts/free-ports.sh 6)
    if [ "$over" = uds ]; then
        frontend=(--uds-name="$work/front.sock" --server-port=0)
        transport="{uds: {udsName: $work/front.sock}}"
    else
        frontend=(--server-port="$front" --server-bind-address=127.0.0.1 --server-cert="$pki/server.crt"
            --server-key="$pki/server.key" --server-ca-cert="$pki/ca.crt")
        transport="{tcp: {url: 'https://127.0.0.1:$front', tlsConfig: {caBundle: $pki/ca.crt, clientCert: $pki/client.crt, clientKey: $pki/client.key}}}"
    fi
    egress_configuration "$transport" >"$work/egress.yaml"

    "$programs/proxy-server" --mode=http-connect "${frontend[@]}" --cluster-cert="$pki/server.crt" --cluster-key="$pki/server.key" \
        --cluster-ca-cert="$pki/ca.crt" --agent-port="$agents" --agent-bind-address=127.0.0.1 --health-port="$health" \
        --health-bind-address=127.0.0.1 --admin-port="$admin" >"$work/server.log" 2>&1 &
    pids+=($!)
    "$programs/proxy-agent" --proxy-server-host=127.0.0.1 --proxy-server-port="$agents" --ca-cert="$pki/ca.crt" \
        --agent-cert="$pki/agent.crt" --agent-key="$pki/agent.key" --health-server-port="$agent_health" \
        --admin-server-port="$agent_admin" >"$work/agent.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do
        ready=$(curl -s --max-time 2 "http://127.0.0.1:$health/readyz" || true)
        [ "$ready" = ok ] && break
        sleep 0.1
    done
    if [ "$ready" = ok ]; then
        "$go/egress-dialer" --config="$work/egress.yaml" "$@" || result=$?
    else
        echo "apiserver-dialer: the server is not ready ($ready); its log and the agent's:" >&2
        tail -n 20 "$work/server.log" "$work/agent.log" >&2
        result=1
    fi
    stop
    return "$result"
}

summary=() failed=
for over in uds tcp; do
    say "konnectivity-quic, $over"
    if run "$ours" "$over" "$@"; then summary+=("konnectivity-quic, $over: passed"); else
        summary+=("konnectivity-quic, $over: FAILED")
        failed=1
    fi
    [ -n "$reference" ] || continue
    say "Go reference, $over (for the record)"
    if run "$go" "$over" "$@"; then summary+=("Go reference, $over: passed"); else
        summary+=("Go reference, $over: failed, does not count")
    fi
done
say "summary"
printf '%s\n' "${summary[@]}"
[ -z "$failed" ]
