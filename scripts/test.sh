#!/usr/bin/env bash
# Every check and test: about a quarter of an hour on two cores, and ten minutes more with cold caches, of Go and Rust.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
scripts/need.sh cargo cc c++ curl python3 go
# 2,000 dials at once need file descriptors at both ends.
ulimit -n "$(ulimit -Hn)"

step "format"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
step "tests"
# The end-to-end tests run the programs themselves, and the reference's.
scripts/go-peers.sh --quiet
cargo build --workspace --bins --locked
cargo test --workspace --locked
step "quick start"
scripts/quickstart.sh --debug --size 100
step "real clients"
scripts/interop.sh --quick
step "the reference's own tests"
scripts/suite.sh --quick
step "Helm chart, manifests, alerts, dashboards"
scripts/deploy.sh
step "fuzz targets, ${FUZZ_SECONDS:-5} s each"
scripts/fuzz.sh "${FUZZ_SECONDS:-5}"
if command -v cargo-deny >/dev/null; then
    step "licences, banned crates, sources"
    scripts/deny.sh
fi
step "all passed"
