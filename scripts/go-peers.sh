#!/usr/bin/env bash
# Builds programs that are written in Go into target/go/: the Go reference's, of the version that interop/go/go.mod names,
# and the ones with real clients in interop/go/. Does nothing for those that are there and up to date. Each takes one or
# two minutes the first time; what one has compiled, the next one needs not.
#
# usage: scripts/go-peers.sh [--quiet] [PROGRAM ...]
#        scripts/go-peers.sh --kubernetes-folder
#
# PROGRAM is proxy-server or proxy-agent (these two if none is named), proxy-test-client, http-test-server,
# egress-dialer, konnectivity, helm, deploy-check, and for the end-to-end checks kubelet, workload, e2e, etcd, kubectl, kube-apiserver.
# The last three take ten minutes of two cores together. They are kept outside of the tree, in the folder that
# --kubernetes-folder prints.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${CARGO_TARGET_DIR:-$PWD/target}/go
kubernetes=interop/go/kubernetes
kubernetes_version=$(sed -n 's/^\tk8s.io\/kubernetes //p' "$kubernetes/go.mod")
kubernetes_folder=${XDG_CACHE_HOME:-$HOME/.cache}/konnectivity-quic/kubernetes-${kubernetes_version#v}
[ "${1:-}" != --kubernetes-folder ] || { echo "$kubernetes_folder"; exit 0; }
quiet=
[ "${1:-}" = --quiet ] && { quiet=1; shift; }
say() { [ -n "$quiet" ] || echo "go-peers: $*"; }
(($#)) || set -- proxy-server proxy-agent

need_go() { # FOLDER OF THE go.mod
    local wanted
    command -v go >/dev/null && return
    wanted=$(sed -n 's/^go //p' "$1/go.mod")
    echo "go-peers: no 'go' in PATH; install a Go toolchain, $wanted or newer (any since 1.21 fetches $wanted itself; Debian: apt-get install golang-go)" >&2
    exit 1
}

build_kubernetes() { # PROGRAM, PACKAGE
    local program=$1 package=$2 version=k8s.io/component-base/version
    if [ -x "$kubernetes_folder/$program" ]; then
        say "$kubernetes_folder/$program is there"
        return
    fi
    need_go "$kubernetes"
    mkdir -p "$kubernetes_folder"
    say "building $kubernetes_folder/$program, which takes minutes"
    IFS=. read -r major minor _ <<<"${kubernetes_version#v}"
    # By a name of its own: a build that was interrupted must not look like one that was not.
    (cd "$kubernetes" && CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -o "$kubernetes_folder/$program.new" \
        -ldflags "-s -w -X $version.gitVersion=$kubernetes_version -X $version.gitMajor=$major -X $version.gitMinor=$minor" "$package")
    mv "$kubernetes_folder/$program.new" "$kubernetes_folder/$program"
}

build() { # PROGRAM, FOLDER OF ITS go.mod, PACKAGE, MORE FOLDERS THAT IT IS MADE FROM
    local program=$1 module=$2 package=$3 stamp
    shift 3
    # Of the reference, only the versions can change.
    stamp=$({ cat "$module"/go.{mod,sum}; [[ $package != .* ]] || find "$module" "$@" -name '*.go' -exec sha256sum {} + | sort; } | sha256sum | cut -d' ' -f1)
    if [ -x "$folder/$program" ] && [ "$(cat "$folder/$program.stamp" 2>/dev/null)" = "$stamp" ]; then
        say "$folder/$program is up to date"
        return
    fi
    need_go "$module"
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
        kubelet | workload | e2e) build "$program" "$kubernetes" "./$program" ;;
        etcd) build_kubernetes etcd go.etcd.io/etcd/server/v3 ;;
        kubectl | kube-apiserver) build_kubernetes "$program" "k8s.io/kubernetes/cmd/$program" ;;
        helm) build "$program" interop/go/deploy helm.sh/helm/v4/cmd/helm ;;
        deploy-check) build "$program" interop/go/deploy . ;;
        *) echo "go-peers: unknown program '$program'" >&2; exit 2 ;;
    esac
done
