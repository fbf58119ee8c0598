#!/usr/bin/env bash
# Checks licences, banned crates and sources of all dependencies; installs cargo-deny if it is missing (minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
cargo deny --locked check licenses bans sources
