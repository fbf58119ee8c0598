#!/usr/bin/env bash
# Checks deploy/: lints the Helm chart, renders it for every example, compares that with the plain manifests, and has each
# object, each reference between them, each argument and each expression of alerts and dashboards looked at.
#
# usage: scripts/deploy.sh [--write]
#
# --write  writes deploy/manifests and the list of values in the chart's README anew
#
# Helm and the check are Go programs, built once, in two or three minutes; the checks take some seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

write=
case ${1:-} in
    '') ;;
    --write) write=1 ;;
    *) echo "deploy: unknown argument '$1'; see the head of this file" >&2; exit 2 ;;
esac
scripts/need.sh cargo cc go diff
scripts/go-peers.sh --quiet helm deploy-check
# With interop, as in the other steps of scripts/test.sh: features are of all packages that are built together.
cargo build --quiet --locked -p konnectivity-server -p konnectivity-agent -p konnectivity-interop --bin proxy-server --bin proxy-agent
target=${CARGO_TARGET_DIR:-$PWD/target}
helm=$target/go/helm check=$target/go/deploy-check
chart=deploy/helm/konnectivity-quic manifests=deploy/manifests

work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-deploy.XXXXXX")
trap 'rm -rf "$work"' EXIT
# What a user of this machine has configured must not matter.
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data

template() { "$helm" template konnectivity "$chart" --namespace kube-system "$@"; }
say() { printf 'deploy: %s\n' "$*"; }

say "linting"
"$helm" lint --strict --quiet "$chart"
mkdir "$work/manifests"
template >"$work/manifests/default.yaml"
for example in "$chart"/examples/*.yaml; do
    "$helm" lint --strict --quiet "$chart" --values "$example"
    template --values "$example" >"$work/manifests/$(basename "$example")"
done
# A static pod is no object of the API: what is installed and what goes to the machines are two files.
mv "$work/manifests/static-pod.yaml" "$work/manifests/static-pod-and-agents.yaml"
template --values "$chart/examples/static-pod.yaml" --set server.staticPod.print=true \
    --show-only templates/server-static-pod.yaml >"$work/manifests/static-pod.yaml"
for file in "$work"/manifests/*.yaml; do
    name=$(basename "$file")
    { echo "# Rendered from $chart by scripts/deploy.sh --write; docs/install.md says what is for what."; cat "$file"; } >"$work/with-head"
    mv "$work/with-head" "$file"
    [ -z "$write" ] || { mkdir -p "$manifests" && cp "$file" "$manifests/$name"; }
done

say "comparing with $manifests"
if ! diff -ru --exclude=README.md "$manifests" "$work/manifests"; then
    echo "deploy: $manifests is not what the chart renders; scripts/deploy.sh --write writes it anew" >&2
    exit 1
fi

say "objects, references and arguments"
given=kube-root-ca.crt,konnectivity-server,konnectivity-frontend,konnectivity-agents-ca,konnectivity-agent,konnectivity-servers-ca
for file in "$manifests"/*.yaml; do
    # The servers' pods come from another file, on the machines.
    more=
    [ "$(basename "$file")" != static-pod-and-agents.yaml ] || more=",pods of konnectivity-server"
    "$check" objects -server "$target/debug/proxy-server" -agent "$target/debug/proxy-agent" -given "$given$more" "$file"
done
"$check" objects deploy/kube-apiserver/*.yaml

say "mistakes that must be seen"
seen() { # SED'S SUBSTITUTION, WHAT THE COMPLAINT HAS
    sed "$1" "$manifests/default.yaml" >"$work/mistake.yaml"
    if complaint=$("$check" objects -agent "$target/debug/proxy-agent" -given "$given" "$work/mistake.yaml" 2>&1) || [[ $complaint != *"$2"* ]]; then
        echo "deploy: '$1' was not complained of with '$2': ${complaint:0:300}" >&2
        exit 1
    fi
}
seen 's/hostNetwork: true/hostNetwerk: true/' 'unknown field "spec.template.spec.hostNetwerk"'
seen 's/targetPort: agents-grpc/targetPort: agent-grpc/' 'has no TCP port agent-grpc'
seen 's/port: health}/port: healthy}/' 'there is no port healthy for a probe'
seen 's/name: socket$/name: sock/' 'there is no volume socket'
seen 's/drop: .ALL./drop: [NET_RAW]/' 'has more rights than it needs'
seen 's/verbs: .create./verbs: ["*"]/' 'it gives more than is needed'
seen 's/(HOST_IP)/(HOSTIP)/' 'names a variable that is not there'
seen 's/secretName: konnectivity-server/secretName: other/' 'there is no Secret other'
seen 's/serviceAccountName: konnectivity-agent/serviceAccountName: other/' 'there is no ServiceAccount other'
seen 's/--sync-interval=1s/--sync-intervall=1s/' 'unknown flag: --sync-intervall'
seen 's/--sync-interval=1s/--sync-interval=20s/' 'sync interval 20s must be less than sync interval cap 10s'

say "values that must be refused"
refused() { # VALUES, WHAT THE MESSAGE HAS
    if message=$(template --set "$1" 2>&1) || [[ $message != *"$2"* ]]; then
        echo "deploy: $1 was not refused with '$2': ${message:0:300}" >&2
        exit 1
    fi
}
refused server.kindd=x "additional properties 'kindd' not allowed"
refused server.kind=Deployment "must be one of"
refused server.agentPort=80 "minimum: got 80"
refused authentication.tokens.enabled=false "nothing says which agents may connect"
refused server.frontend.tls.enabled=true "kube-apiserver speaks GRPC over a Unix socket only"
refused server.kind=StaticPod "cannot read Secrets"
refused server.kind=None "set agent.serverHost"
refused authentication.certificates.enabled=true "set authentication.certificates.caSecret"

say "alerts, dashboards, list of values"
"$check" monitoring -metrics docs/metrics.md -operations docs/operations.md "$chart"
"$check" readme ${write:+-write} "$chart"
say "all is well"
