#!/usr/bin/env bash
# Moves a running cluster from the reference to this project and back, as docs/migration.md tells an operator to, while
# clients dial; counts the dials that fail. None may.
#
# usage: scripts/migration.sh [--release] [--front grpc|connect] [--in-place] [more options; --help lists them]
#
# Without --front, both are tried, one after the other: two minutes, besides building.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=debug options=() fronts=(grpc connect)
while (($#)); do
    case $1 in
        --release) profile=release ;;
        --front) fronts=("${2:?--front needs a word}"); shift ;;
        *) options+=("$1") ;;
    esac
    shift
done
scripts/need.sh cargo cc go
ulimit -n "$(ulimit -Hn)"
scripts/go-peers.sh --quiet
cargo build --locked --profile "${profile/debug/dev}" -p konnectivity-server -p konnectivity-agent -p konnectivity-interop \
    --bin proxy-server --bin proxy-agent --bin migration
result=0
for front in "${fronts[@]}"; do
    printf '\n== %s\n' "$front"
    "${CARGO_TARGET_DIR:-$PWD/target}/$profile/migration" --front "$front" "${options[@]}" || result=1
done
exit $result
