#!/usr/bin/env bash
# Builds the Go reference's proxy-server and proxy-agent, of the version that interop/go/go.mod names, into target/go/.
# Does nothing when they are there already. About two minutes the first time.
#
# usage: scripts/go-peers.sh [--quiet]
set -euo pipefail
cd "$(dirname "$0")/.."

module=sigs.k8s.io/apiserver-network-proxy
folder=${CARGO_TARGET_DIR:-$PWD/target}/go
quiet=
[ "${1:-}" = --quiet ] && quiet=1
say() { [ -n "$quiet" ] || echo "go-peers: $*"; }

stamp=$(cat interop/go/go.mod interop/go/go.sum | sha256sum | cut -d' ' -f1)
if [ -x "$folder/proxy-server" ] && [ -x "$folder/proxy-agent" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
    say "already built in $folder"
    exit 0
fi

if ! command -v go >/dev/null; then
    wanted=$(sed -n 's/^go //p' interop/go/go.mod)
    echo "go-peers: no 'go' in PATH; install a Go toolchain, $wanted or newer (any since 1.21 fetches $wanted itself; Debian: apt-get install golang-go)" >&2
    exit 1
fi

mkdir -p "$folder"
say "building $module into $folder with $(go env GOVERSION), about two minutes"
for program in server agent; do
    # -mod=readonly: what go.sum does not name is not built.
    (cd interop/go && CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false \
        -o "$folder/proxy-$program" "$module/cmd/$program")
done
echo "$stamp" >"$folder/stamp"
say "built $folder/proxy-server and $folder/proxy-agent"
