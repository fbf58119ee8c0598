#!/usr/bin/env bash
# Runs proxy-server and proxy-agent from within the root folders of their images, as the images' user, and fetches a page
# through them: the server is found by /etc/hosts, the target by DNS. For scripts/image.sh, in a network and with mounts of its
# own.
#
# usage: scripts/image-check.sh CERTS SERVER_ROOT AGENT_ROOT
set -euo pipefail

certs=$1 server_root=$2 agent_root=$3
scripts/need.sh curl python3 ip
ip link set lo up
work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-image-check.XXXXXX")
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

inside() { # ROOT, COMMAND: as the image's user, with what a pod would have of the machine
    local root=$1
    shift
    exec chroot --userspec=65532:65532 --groups=65532 "$root/" "$@"
}
for root in "$server_root" "$agent_root"; do
    program=/proxy-$([ "$root" = "$server_root" ] && echo server || echo agent)
    # What every container gets.
    mkdir -p "$root/dev" "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    echo "127.0.0.1 control.check.test" >"$root/etc/hosts"
    echo "nameserver 127.0.0.1" >"$root/etc/resolv.conf"
    mkdir -p "$root/pki"
    (inside "$root" "$program" --version)
done
"$certs" "$work/pki" --name control.check.test >/dev/null
for root in "$server_root" "$agent_root"; do install -m 0444 "$work"/pki/* "$root/pki/"; done

# Knows the target's IPv4 address, and of everything else that it is not there.
python3 - <<'PYTHON' &
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    question, peer = server.recvfrom(512)
    end = question.index(0, 12) + 5
    known = question[12:end - 4] == b"\6target\5check\4test\0"
    found = known and question[end - 4:end - 2] == b"\0\1"
    head = question[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + (b"\0\1" if found else b"\0\0") + b"\0\0\0\0"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if found else b""
    server.sendto(head + question[12:end] + answer, peer)
PYTHON
pids+=($!)
mkdir "$work/www"
echo "through both images" >"$work/www/index.html"
python3 -m http.server --bind 127.0.0.1 --directory "$work/www" 8080 >/dev/null 2>&1 &
pids+=($!)
(inside "$server_root" /proxy-server --mode=http-connect --server-cert=/pki/server.crt --server-key=/pki/server.key \
    --server-ca-cert=/pki/ca.crt --cluster-cert=/pki/server.crt --cluster-key=/pki/server.key \
    --cluster-ca-cert=/pki/ca.crt) >"$work/server.log" 2>&1 &
pids+=($!)
(inside "$agent_root" /proxy-agent --proxy-server-host=control.check.test --ca-cert=/pki/ca.crt --agent-cert=/pki/agent.crt \
    --agent-key=/pki/agent.key --transport=quic) >"$work/agent.log" 2>&1 &
pids+=($!)

page=
for _ in $(seq 50); do
    # Everything has just been started.
    page=$(curl --silent --show-error --fail --max-time 10 --proxytunnel --proxy https://localhost:8090 --proxy-cacert "$work/pki/ca.crt" \
        --proxy-cert "$work/pki/client.crt" --proxy-key "$work/pki/client.key" http://target.check.test:8080/ 2>"$work/curl.log") && break
    page=
    sleep 0.2
done
if [ "$page" != "through both images" ]; then
    echo "image-check: no page came through the images' programs: $(cat "$work/curl.log"); their logs:" >&2
    tail -n 20 "$work/server.log" "$work/agent.log" >&2
    exit 1
fi
grep -q 'serving over QUIC' "$work/agent.log"
echo "image-check: $page, over QUIC, with names by /etc/hosts and by DNS"
