#!/usr/bin/env bash
# Shows the tunnel at work: a client fetches a page and a large file from an HTTP server in a network that it has no
# route to, through proxy-server and proxy-agent.
#
#   scripts/quickstart.sh [--keep] [--size MEGABYTES] [--debug]
#
# --keep   leaves everything running and prints commands to try; Ctrl-C stops it
# --size   megabytes of the large file, default 1000
# --debug  with debug builds, which are slower and built sooner
set -euo pipefail
cd "$(dirname "$0")/.."

keep= size=1000 profile=release
while (($#)); do
    case $1 in
        --keep) keep=1 ;;
        --size) size=${2:?--size needs a number}; shift ;;
        --debug) profile=debug ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "quickstart: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done

say() { printf '\n== %s\n' "$*"; }
scripts/need.sh cargo cc curl python3 sha256sum
[ "$(id -u)" != 0 ] || scripts/need.sh ip

say "building $profile binaries"
release=()
[ "$profile" = debug ] || release=(--release)
cargo build "${release[@]}" --locked -p konnectivity-server -p konnectivity-agent -p konnectivity-interop --bin proxy-server --bin proxy-agent --bin certs
bin=${CARGO_TARGET_DIR:-$PWD/target}/$profile
"$bin/proxy-server" --version
"$bin/proxy-agent" --version

work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-quickstart.XXXXXX")
namespace= pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ -n "$namespace" ]; then
        ip route delete unreachable "$target_address/32" 2>/dev/null || true
        ip link delete "kq$$" 2>/dev/null || true
        ip netns delete "$namespace" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The node network: a namespace of its own, where the agent reaches the server over one veth pair and the HTTP server
# listens on an address that nothing outside has a route to.
server_address=127.0.0.1 target_address=127.0.0.1 inside=()
try=kq-$$
if [ "$(id -u)" = 0 ] && command -v ip >/dev/null && ip netns add "$try" 2>/dev/null; then
    namespace=$try
    server_address=10.254.77.1 target_address=10.254.88.8
    inside=(ip netns exec "$namespace")
    ip link add "kq$$" type veth peer name node netns "$namespace"
    ip address add "$server_address/30" dev "kq$$"
    ip link set "kq$$" up
    "${inside[@]}" ip address add 10.254.77.2/30 dev node
    "${inside[@]}" ip link set node up
    "${inside[@]}" ip link set lo up
    "${inside[@]}" ip address add "$target_address/32" dev lo
    # Without it, a default route could lead somewhere else.
    ip route add unreachable "$target_address/32"
    say "the node network is the namespace $namespace; the target is $target_address"
else
    say "no network namespaces here (they need root and iproute2): everything runs on loopback, so the same URL also works without the tunnel"
fi

read -r front agents health admin agent_health agent_admin http < <(scripts/free-ports.sh 7)

say "certificates"
"$bin/certs" "$work/pki" --name "$server_address"
pki=$work/pki

say "starting a real HTTP server in the node network"
mkdir "$work/www"
echo "hello from $target_address, through the tunnel" >"$work/www/index.html"
head -c "${size}000000" /dev/urandom >"$work/www/large"
"${inside[@]}" python3 -m http.server --bind "$target_address" --directory "$work/www" "$http" >"$work/http.log" 2>&1 &
pids+=($!)
if ! "${inside[@]}" curl --silent --show-error --retry 100 --retry-delay 1 --retry-connrefused --retry-max-time 30 --output "$work/first" \
    "http://$target_address:$http/"; then
    echo "quickstart: the HTTP server does not start; its log:" >&2
    tail -n 20 "$work/http.log" >&2
    exit 1
fi

say "starting proxy-server and proxy-agent"
"$bin/proxy-server" --mode=http-connect --server-port="$front" --server-cert="$pki/server.crt" --server-key="$pki/server.key" \
    --server-ca-cert="$pki/ca.crt" --cluster-cert="$pki/server.crt" --cluster-key="$pki/server.key" \
    --cluster-ca-cert="$pki/ca.crt" --agent-port="$agents" --health-port="$health" --admin-port="$admin" \
    --server-bind-address=127.0.0.1 --health-bind-address=127.0.0.1 >"$work/server.log" 2>&1 &
pids+=($!)
"${inside[@]}" "$bin/proxy-agent" --proxy-server-host="$server_address" --proxy-server-port="$agents" --ca-cert="$pki/ca.crt" \
    --agent-cert="$pki/agent.crt" --agent-key="$pki/agent.key" --health-server-port="$agent_health" \
    --admin-server-port="$agent_admin" --agent-id=quickstart-agent >"$work/agent.log" 2>&1 &
pids+=($!)

ready=
for _ in $(seq 100); do
    ready=$(curl -s --max-time 2 "http://127.0.0.1:$health/readyz" || true)
    [ "$ready" = ok ] && break
    sleep 0.1
done
if [ "$ready" != ok ]; then
    echo "quickstart: the server is not ready ($ready); its log and the agent's:" >&2
    tail -n 20 "$work/server.log" "$work/agent.log" >&2
    exit 1
fi
echo "ready"

url=http://$target_address:$http
tunnel=(curl --silent --show-error --fail --proxytunnel --proxy "https://localhost:$front" --proxy-cacert "$pki/ca.crt"
    --proxy-cert "$pki/client.crt" --proxy-key "$pki/client.key")

say "a page through the tunnel: ${tunnel[*]} $url/"
"${tunnel[@]}" "$url/"

if [ -n "$namespace" ]; then
    say "the same page without the tunnel, which must fail: curl $url/"
    if curl --silent --show-error --max-time 3 "$url/"; then
        echo "quickstart: the target can be reached without the tunnel" >&2
        exit 1
    fi
fi

say "a file of $size MB through the tunnel"
speed=$("${tunnel[@]}" --write-out '%{speed_download}' --output "$work/fetched" "$url/large")
sent=$(sha256sum <"$work/www/large") got=$(sha256sum <"$work/fetched")
[ "$sent" = "$got" ] || { echo "quickstart: the checksums differ: $sent, $got" >&2; exit 1; }
echo "checksums are equal: ${got%% *}"
awk -v speed="$speed" 'BEGIN { printf "%.0f MB/s\n", speed / 1e6 }'

say "what the server knows of the connection: curl http://127.0.0.1:$admin/connections"
curl --silent --show-error "http://127.0.0.1:$admin/connections"

if [ -n "$keep" ]; then
    say "still running; Ctrl-C stops everything. Things to try from another terminal:"
    echo "${tunnel[*]} $url/"
    echo "curl http://127.0.0.1:$admin/connections"
    echo "curl http://127.0.0.1:$health/readyz?verbose"
    echo "curl http://127.0.0.1:$health/metrics"
    echo "tail -f $work/server.log $work/agent.log"
    wait "${pids[@]}"
fi
say "done; everything is stopped"
