#!/usr/bin/env bash
# Measures direct TCP, the Go reference and this project's programs side by side and prints tables.
#
# usage: scripts/bench.sh loopback [--quick] [more options; --help lists them]
#        scripts/bench.sh wan [--quick] [...]       over emulated bad links, with OpenSSH too; needs root
#        scripts/bench.sh --no-build loopback ...   with the programs as they are
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
if [ "${1:-}" = --no-build ]; then
    shift
else
    scripts/go-peers.sh
    cargo build --release --locked -p konnectivity-server -p konnectivity-agent -p konnectivity-interop --bins
fi
[ $# -gt 0 ] || set -- --help

# What namespaces may use is a setting of the whole machine.
allow_congestion_control() {
    local allowed name
    if command -v modprobe >/dev/null; then modprobe -aq tcp_cubic tcp_bbr || true; fi
    allowed=$(sysctl -n net.ipv4.tcp_allowed_congestion_control)
    for name in cubic bbr; do
        case " $allowed " in *" $name "*) continue ;; esac
        if sysctl -qw net.ipv4.tcp_allowed_congestion_control="$allowed $name" 2>/dev/null; then
            echo "bench: everybody on this machine may now use TCP's $name (net.ipv4.tcp_allowed_congestion_control)"
            allowed="$allowed $name"
        else
            echo "bench: this kernel has no $name for TCP" >&2
        fi
    done
}

if [ "$1" = wan ]; then
    PATH=$PATH:/usr/sbin:/sbin
    if [ "$(id -u)" = 0 ]; then
        scripts/need.sh ip chrt ssh sshd sysctl || echo "bench: what needs them is left out" >&2
        allow_congestion_control
    fi
fi
exec "$target/release/bench" "$@"
