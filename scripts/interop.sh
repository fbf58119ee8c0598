#!/usr/bin/env bash
# Whether this project's programs and the Go reference's work together; in two parts.
#
# clients: real clients dial through proxy-server and proxy-agent, over each kind of frontend: gRPC and HTTP CONNECT, each
# on a Unix socket and over TCP with mutual TLS. The clients are written in Go, see interop/go/:
#   konnectivity       the reference's client library, its single-use and its reusable tunnel
#   egress-dialer      kube-apiserver's own dialer under HTTP/1.1, HTTP/2, WebSocket, SPDY (it has no gRPC over TCP)
#   proxy-test-client  the reference's test client
# matrix: servers and agents of both makes in every pairing, through every scenario; see docs/interop.md. As root, with
# network namespaces, so that networks without UDP are among them.
#
# usage: scripts/interop.sh [--quick] [--release] [--only clients|matrix] [--with-reference | --only-reference] [FRONTEND ...]
#        scripts/interop.sh [--quick] [--release] --only matrix [-- OPTIONS OF THE MATRIX ...]
#
# --quick            fewer tries: a few minutes, besides building
# --release          with release builds of proxy-server and proxy-agent instead of debug ones
# --only PART        one part instead of both
# --with-reference   (clients) the Go reference pair besides, for the record: what fails there does not count
# --only-reference   (clients) the Go reference pair alone
# FRONTEND           (clients) grpc-uds, grpc-mtls, connect-uds or connect-mtls; all of them if none is named
# -- OPTIONS         (matrix) such as --only '*/udp-*' or --list; -- --help names them
set -euo pipefail
cd "$(dirname "$0")/.."

profile=debug quick=() pairs=(ours) frontends=() parts="clients matrix"
while (($#)); do
    case $1 in
        --quick) quick=(--quick) ;;
        --release) profile=release ;;
        --with-reference) pairs=(ours reference) ;;
        --only-reference) pairs=(reference) ;;
        --only)
            case ${2:-} in
                clients | matrix) parts=$2 ;;
                *) echo "interop: --only takes clients or matrix, not '${2:-}'" >&2; exit 2 ;;
            esac
            shift
            ;;
        --) shift; break ;;
        grpc-uds | grpc-mtls | connect-uds | connect-mtls) frontends+=("$1") ;;
        -h | --help) sed -n '2,24s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "interop: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done
((${#frontends[@]})) || frontends=(grpc-uds grpc-mtls connect-uds connect-mtls)
say() { printf '\n== %s\n' "$*"; }
scripts/need.sh cargo cc curl python3 sha256sum
[[ $parts != *matrix* || $(id -u) != 0 ]] || scripts/need.sh ip nft
# Thousands of dials at once need file descriptors at both ends.
ulimit -n "$(ulimit -Hn)"

say "building"
target=${CARGO_TARGET_DIR:-$PWD/target}
ours=$target/$profile go=$target/go
build=(-p konnectivity-interop --bin certs --bin matrix) peers=()
[[ $parts != *clients* ]] || peers+=(konnectivity egress-dialer proxy-test-client http-test-server)
[[ $parts != *matrix* && ${pairs[*]} != *ours* ]] || build+=(-p konnectivity-server -p konnectivity-agent --bin proxy-server --bin proxy-agent)
[[ $parts != *matrix* && ${pairs[*]} != *reference* ]] || peers+=(proxy-server proxy-agent)
cargo build --locked --profile "${profile/debug/dev}" "${build[@]}"
scripts/go-peers.sh "${peers[@]}"

bad= matrix_bad=
work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-interop.XXXXXX")
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
trap 'stop; [ -n "$bad" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$ours/certs" "$pki"

wait_for() { # URL: until it answers "ok"
    for _ in $(seq 100); do
        [ "$(curl -s --max-time 2 "$1" || true)" = ok ] && return 0
        sleep 0.1
    done
    echo "FAIL  $1 does not say ok; the logs of server and agent:"
    tail -n 20 "$work/$pair-$kind-server.log" "$work/$pair-$kind-agent.log" || true
    return 1
}

start_server() {
    local frontend=(--uds-name="$work/front.sock" --server-port=0)
    [[ $kind == *-uds ]] || frontend=(--server-port="$front" --server-bind-address=127.0.0.1 --server-cert="$pki/server.crt"
        --server-key="$pki/server.key" --server-ca-cert="$pki/ca.crt")
    "$programs/proxy-server" --mode="$mode" "${frontend[@]}" --cluster-cert="$pki/server.crt" --cluster-key="$pki/server.key" \
        --cluster-ca-cert="$pki/ca.crt" --agent-port="$agents" --agent-bind-address=127.0.0.1 --health-port="$health" \
        --health-bind-address=127.0.0.1 --admin-port="$admin" >"$work/$pair-$kind-server.log" 2>&1 &
    pids+=($!)
    wait_for "http://127.0.0.1:$health/healthz"
}

start_agent() {
    "$programs/proxy-agent" --proxy-server-host=127.0.0.1 --proxy-server-port="$agents" --ca-cert="$pki/ca.crt" \
        --agent-cert="$pki/agent.crt" --agent-key="$pki/agent.key" --health-server-port="$agent_health" \
        --admin-server-port="$agent_admin" >"$work/$pair-$kind-agent.log" 2>&1 &
    pids+=($!)
    wait_for "http://127.0.0.1:$health/readyz"
}

start_pages() {
    "$go/http-test-server" --server-port="$pages" >"$work/pages.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do
        curl -s --max-time 2 -o "$work/page" "http://127.0.0.1:$pages/success" && return
        sleep 0.1
    done
    echo "interop: the reference's test server does not answer" >&2
    exit 1
}

konnectivity() { # OPTIONS
    local over=(--uds="$work/front.sock")
    [[ $kind == *-uds ]] || over=(--tcp="127.0.0.1:$front" --ca="$pki/ca.crt" --cert="$pki/client.crt" --key="$pki/client.key")
    "$go/konnectivity" "${over[@]}" "$@"
}

egress() {
    local protocol=GRPC transport="{uds: {udsName: $work/front.sock}}"
    [ "$mode" = grpc ] || protocol=HTTPConnect
    [[ $kind == *-uds ]] ||
        transport="{tcp: {url: 'https://127.0.0.1:$front', tlsConfig: {caBundle: $pki/ca.crt, clientCert: $pki/client.crt, clientKey: $pki/client.key}}}"
    # The file for kube-apiserver's --egress-selector-config-file.
    cat >"$work/egress.yaml" <<YAML
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: $protocol
    transport: $transport
YAML
    "$go/egress-dialer" --config="$work/egress.yaml" "${quick[@]}"
}

# The reference's test client against the reference's test server: 40 requests at a time, each on a dial of its own.
test_client() {
    local over=(--proxy-host= --proxy-port=0 --proxy-uds="$work/front.sock") passed=0 failed=0 got want path count
    [[ $kind == *-uds ]] || over=(--proxy-host=127.0.0.1 --proxy-port="$front" --ca-cert="$pki/ca.crt"
        --client-cert="$pki/client.crt" --client-key="$pki/client.key")
    # It ends its connection at any signal, those that the Go runtime sends itself included, unless told to send none.
    export GODEBUG=asyncpreemptoff=1
    for want in "success 40 The success test page" "error 40 Internal Server Error" "close 0 EOF"; do
        read -r path count want <<<"$want"
        timeout 60 "$go/proxy-test-client" --mode="$mode" "${over[@]}" --request-host=127.0.0.1 --request-port="$pages" \
            --request-path="$path" --test-requests=$((count ? count : 1)) >"$work/client.log" 2>&1 || true
        got=$(grep -c "$want" "$work/client.log" || true)
        if ((count ? got == count : got > 0)); then
            echo "ok    proxy-test-client /$path: \"$want\" $got times"
            passed=$((passed + 1))
        else
            echo "FAIL  proxy-test-client /$path: \"$want\" $got times, want $count; the end of its log:"
            tail -n 5 "$work/client.log"
            failed=$((failed + 1))
        fi
    done
    unset GODEBUG
    echo "passed $passed, failed $failed"
    ((failed == 0))
}

summary=()
run() { # NAME, COMMAND: which ends with a line "passed N, failed M"
    local name=$1 result=0 last started=$SECONDS
    shift
    "$@" 2>&1 | tee "$work/output" || result=$?
    last=$(tail -n 1 "$work/output")
    [[ $last == passed* ]] || last="did not come to its end"
    if ((result != 0)) && [ "$pair" = reference ]; then
        last+=", does not count"
    elif ((result != 0)); then
        last+="   <-- FAILED"
        bad=1
    fi
    summary+=("$(printf '%-10s %-12s %-18s %4d s  %s' "$pair" "$kind" "$name" $((SECONDS - started)) "$last")")
}

# What nothing may bring about: an end before the end, and a panic, that of a stop included.
unharmed() {
    local alive=1
    kill -0 "${pids[0]}" && kill -0 "${pids[1]}" || alive=
    stop
    if [ -z "$alive" ] || grep -h -m 5 "panicked\|goroutine .*\[running\]" "$work/$pair-$kind-server.log" "$work/$pair-$kind-agent.log"; then
        echo "FAIL  a program panicked or ended; its last words:"
        tail -n 5 "$work/$pair-$kind-server.log" "$work/$pair-$kind-agent.log"
        echo "passed 0, failed 1"
        return 1
    fi
    echo "ok    server and agent lived to the end, without a panic"
    echo "passed 1, failed 0"
}

no_start() { echo "passed 0, failed 1"; return 1; }

[[ $parts == *clients* ]] || pairs=()
for pair in "${pairs[@]}"; do
    programs=$ours
    [ "$pair" = ours ] || programs=$go
    for kind in "${frontends[@]}"; do
        mode=grpc
        [[ $kind == grpc-* ]] || mode=http-connect
        read -r front agents health admin agent_health agent_admin pages < <(scripts/free-ports.sh 7)
        say "$pair, $kind"
        if ! start_server; then
            run start no_start
        else
            [ "$mode" = http-connect ] || run "without an agent" konnectivity --no-agent
            if ! start_agent; then
                run start no_start
            else
                start_pages
                run proxy-test-client test_client
                [ "$kind" = grpc-mtls ] || run egress-dialer egress
                [ "$mode" = http-connect ] || run konnectivity konnectivity "${quick[@]}"
                run "life and end" unharmed
            fi
        fi
        stop
    done
done
if [[ $parts == *clients* ]]; then
    say "clients: summary"
    printf '%s\n' "${summary[@]}"
    [ -z "$bad" ] || echo "the logs of server and agent are in $work"
fi
if [[ $parts == *matrix* ]]; then
    say "matrix"
    "$ours/matrix" "${quick[@]}" --out "$target/matrix" "$@" || matrix_bad=1
fi
[ -z "$bad$matrix_bad" ]
