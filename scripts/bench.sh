#!/usr/bin/env bash
# Measures direct TCP, the Go reference and this project's programs side by side, by HTTP CONNECT and by gRPC, and
# prints a table for each.
#
# usage: scripts/bench.sh loopback [--quick] [more options; --help lists them]
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
exec "$target/release/bench" "$@"
