#!/usr/bin/env bash
# Builds programs that are written in Go into target/go/: the Go reference's, of the version that interop/go/go.mod names,
# and the ones with real clients in interop/go/. Does nothing for those that are there and up to date. Each takes one or
# two minutes the first time; what one has compiled, the next one needs not.
#
# usage: scripts/go-peers.sh [--quiet] [PROGRAM ...]
#
# PROGRAM is proxy-server or proxy-agent (these two if none is named), proxy-test-client, http-test-server,
# egress-dialer, konnectivity, helm or deploy-check.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${CARGO_TARGET_DIR:-$PWD/target}/go
quiet=
[ "${1:-}" = --quiet ] && { quiet=1; shift; }
say() { [ -n "$quiet" ] || echo "go-peers: $*"; }
(($#)) || set -- proxy-server proxy-agent

build() { # PROGRAM, FOLDER OF ITS go.mod, PACKAGE, MORE FOLDERS THAT IT IS MADE FROM
    local program=$1 module=$2 package=$3 stamp wanted
    shift 3
    # Of the reference, only the versions can change.
    stamp=$({ cat "$module"/go.{mod,sum}; [ "$package" != . ] || find "$module" "$@" -name '*.go' -exec sha256sum {} + | sort; } | sha256sum | cut -d' ' -f1)
    if [ -x "$folder/$program" ] && [ "$(cat "$folder/$program.stamp" 2>/dev/null)" = "$stamp" ]; then
        say "$folder/$program is up to date"
        return
    fi
    if ! command -v go >/dev/null; then
        wanted=$(sed -n 's/^go //p' "$module/go.mod")
        echo "go-peers: no 'go' in PATH; install a Go toolchain, $wanted or newer (any since 1.21 fetches $wanted itself; Debian: apt-get install golang-go)" >&2
        exit 1
    fi
    mkdir -p "$folder"
    say "building $folder/$program with $(go env GOVERSION)"
    # -mod=readonly: what go.sum does not name is not built.
    (cd "$module" && CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -o "$folder/$program" "$package")
    echo "$stamp" >"$folder/$program.stamp"
}

reference=sigs.k8s.io/apiserver-network-proxy/cmd
for program; do
    case $program in
        proxy-server) build "$program" interop/go "$reference/server" ;;
        proxy-agent) build "$program" interop/go "$reference/agent" ;;
        proxy-test-client) build "$program" interop/go "$reference/test-client" ;;
        http-test-server) build "$program" interop/go "$reference/test-server" ;;
        egress-dialer) build "$program" interop/go/egress . interop/go/harness ;;
        konnectivity) build "$program" interop/go/konnectivity . interop/go/harness ;;
        helm) build "$program" interop/go/deploy helm.sh/helm/v4/cmd/helm ;;
        deploy-check) build "$program" interop/go/deploy . ;;
        *) echo "go-peers: unknown program '$program'" >&2; exit 2 ;;
    esac
done
