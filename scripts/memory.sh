#!/usr/bin/env bash
# Measures the memory of an agent that may have only 30 MiB, as in the reference's manifests: a real agent in a control
# group of its own, with 200 dials that carry traffic, and dials that stall beside them. Fails when the agent is killed,
# when it goes beyond its limit, or when a dial breaks that is not stalled. Needs root; a minute besides building.
#
# usage: scripts/memory.sh [--debug] [more options; --help lists them]
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release options=()
while (($#)); do
    case $1 in
        --debug) profile=debug ;;
        *) options+=("$1") ;;
    esac
    shift
done
scripts/need.sh cargo cc
ulimit -n "$(ulimit -Hn)"
cargo build --locked --profile "${profile/debug/dev}" -p konnectivity-server -p konnectivity-agent -p konnectivity-interop \
    --bin proxy-server --bin proxy-agent --bin memory
programs=${CARGO_TARGET_DIR:-$PWD/target}/$profile
"$programs/memory" measure --programs "$programs" "${options[@]}"
