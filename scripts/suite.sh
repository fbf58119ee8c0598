#!/usr/bin/env bash
# Runs the reference's own integration tests with this project's programs: what the tests start as agent, as server or as
# both is ours. The tests are those of the version that interop/go/go.mod names, from a copy of its source in which
# nothing is changed; interop/go/suite/ is put beside them, so that the server too can be a program of its own.
#
# usage: scripts/suite.sh [--quick] [--release | --ours FOLDER] [--runs N] [--only AGENT/SERVER ...] [--test REGEX]
#
# --quick    only the pairs with a program of ours, once: a minute and a half, besides building
# --release  with release builds of proxy-server and proxy-agent instead of debug ones
# --ours     proxy-server and proxy-agent from this folder, as they are
# --runs N   everything N times, one after the other
# --only     named pairs only. AGENT and SERVER are ours, go (within the tests' process) or go-program
# --test     only the tests whose names match
#
# Without --quick, go/go and go/go-program are run besides, for the record: what fails there does not count. Pairs with the
# reference's agent as a program say little: any of their tests fails when it asks for open_server_connections before the
# agent has connected for the first time, for until then the agent does not have that metric.
# Tests that cannot be asked for as they are stand in interop/go/suite/exceptions, each with its reason.
# Everything runs side by side: most of the time, it waits.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=debug runs=1 pairs=() quick= wanted=^Test ours=
while (($#)); do
    case $1 in
        --quick) quick=1 ;;
        --release) profile=release ;;
        --ours) ours=$(realpath "${2:?--ours needs a folder}"); shift ;;
        --runs) runs=${2:?--runs needs a number}; shift ;;
        --only) [[ ${2:-} =~ ^(ours|go|go-program)/(ours|go|go-program)$ ]] || { echo "suite: '${2:-}' is no pair; see --help" >&2; exit 2; }
            pairs+=("$2"); shift ;;
        --test) wanted=${2:?--test needs an expression}; shift ;;
        -h | --help) sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "suite: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done
if ((${#pairs[@]} == 0)); then
    pairs=(ours/go go/ours ours/ours)
    [ -n "$quick" ] || pairs+=(go/go go/go-program)
fi
scripts/need.sh cargo cc go ip sha256sum
target=${CARGO_TARGET_DIR:-$PWD/target}
go=$target/go logs=$target/suite
exceptions=interop/go/suite/exceptions
# The first waits a minute whatever happens: it takes its own waiting for a leak. In the others agents are killed, which a
# server learns from silence where they speak QUIC.
long=(TestProxyDial_RequestCancelled_Concurrent_GRPC TestProxy_Agent_Disconnect_Persistent_Connection TestAgentRestartReconnect)
work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-suite.XXXXXX")
jobs=()
stop() { for job in "${jobs[@]}"; do kill -- "-$job" 2>/dev/null || true; done; rm -rf "$work"; }
trap stop EXIT
trap 'exit 130' INT TERM

build_tests() {
    local stamp reference=sigs.k8s.io/apiserver-network-proxy client=sigs.k8s.io/apiserver-network-proxy/konnectivity-client version source
    stamp=$(cat interop/go/go.{mod,sum} interop/go/suite/*.go | sha256sum | cut -d' ' -f1)
    if [ -x "$go/suite" ] && [ "$(cat "$go/suite.stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    echo "suite: building $go/suite"
    (cd interop/go && go mod download "$reference" "$client")
    source=$(cd interop/go && go list -m -f '{{.Dir}}' "$reference")
    version=$(cd interop/go && go list -m -f '{{.Version}}' "$client")
    mkdir -p "$work/copy" "$go"
    # No need of e2e/, whose dependencies are many.
    cp -r "$source"/{go.mod,go.sum,cmd,pkg,proto,tests} "$work/copy"
    chmod -R u+w "$work/copy"
    cp interop/go/suite/*.go "$work/copy/tests"
    # The reference takes its client library from a folder that the module comes without.
    grep "^$client $version" interop/go/go.sum >>"$work/copy/go.sum"
    (cd "$work/copy" && go mod edit -replace="$client=$client@$version" &&
        go test -c -mod=readonly -tags=suite -trimpath -buildvcs=false -o "$go/suite" ./tests)
    echo "$stamp" >"$go/suite.stamp"
}

# Tests dial an address that has to be silent, and look up a host that must not exist. Whether they are is up to the
# network, so each pair has one of its own: it ends in a cable whose other end drops what comes, and knows no name server.
# What a pair has started ends with it.
network() {
    ip link set lo up
    ip link add silent type veth peer name far
    ip addr add 198.18.0.1/15 dev silent
    ip link set far up
    ip link set silent up
    ip neigh add 198.18.0.254 lladdr 02:00:00:00:00:01 dev silent nud permanent
    mount --bind "$work/nsswitch" /etc/nsswitch.conf
}
export -f network
export work
echo 'hosts: files' >"$work/nsswitch"
# shellcheck disable=SC2016
alone=(unshare --net --mount --pid --mount-proc --fork --kill-child bash -ec 'network; exec "$@"' pair)
[ "$(id -u)" = 0 ] || alone=(unshare --map-root-user "${alone[@]:1}")
if ! "${alone[@]}" true 2>"$work/refused"; then
    echo "suite: no network of its own for each pair ($(tail -n 1 "$work/refused")); TestProxyDial_AgentTimeout_GRPC and TestFailedDNSLookupProxy_HTTPCONN take what this one does" >&2
    alone=()
fi

listed() { # KIND, PAIR: the tests that are so for it, between spaces
    local kind pattern test found=" "
    while read -r kind pattern test _; do
        # shellcheck disable=SC2053
        [[ $kind != "$1" || $2 != $pattern ]] || found+="$test "
    done <"$exceptions"
    echo "$found"
}

start() { # PAIR, LOG, TRIES: until one passes, OPTIONS: that choose the tests
    local agent=${1%/*} server=${1#*/} log=$2 tries=$3 with=()
    shift 3
    case $agent in ours) with+=(-agent-path="$ours/proxy-agent") ;; go-program) with+=(-agent-path="$go/proxy-agent") ;; esac
    case $server in ours) with+=(-server-path="$ours/proxy-server") ;; go-program) with+=(-server-path="$go/proxy-server") ;; esac
    # shellcheck disable=SC2016
    "${alone[@]}" bash -c 'for ((try = 0; try < $0; try++)); do "$@" && break; done' "$tries" "$go/suite" -test.v=test2json -test.timeout=4m "$@" "${with[@]}" >"$log" 2>&1 </dev/null &
    jobs+=($!)
}

# Starts all tests of a pair: most of them in one process, the long ones and the uncertain ones each in one of its own.
start_all() { # PAIR, LOGS: how the names of the logs begin
    local test rest=() skipped uncertain
    skipped=$(listed skipped "$1") uncertain=$(listed uncertain "$1")
    for test in "${tests[@]}"; do
        if [[ $skipped == *" $test "* ]]; then
            continue
        elif [[ $uncertain == *" $test "* ]]; then
            start "$1" "$2.$test.log" 6 -test.run="^$test\$"
        elif [[ " ${long[*]} " == *" $test "* ]]; then
            start "$1" "$2.$test.log" 1 -test.run="^$test\$"
        else
            rest+=("$test")
        fi
    done
    ((${#rest[@]} == 0)) || start "$1" "$2.log" 1 -test.run="^($(IFS='|'; echo "${rest[*]}"))\$"
}

# The line of the table for a pair. Every test must say that it passed: each time, but for the uncertain ones.
judge() { # PAIR, LOGS
    local pair=$1 skipped uncertain test passes fails passed=0 failed=() left=0 twice=() text="$work/log"
    cat "$2".*log >"$text"
    skipped=$(listed skipped "$pair") uncertain=$(listed uncertain "$pair")
    for test in "${tests[@]}"; do
        passes=$(grep -ac "^.--- PASS: $test (" "$text" || true)
        fails=$(grep -ac "^.--- FAIL: $test (" "$text" || true)
        if [[ $skipped == *" $test "* ]]; then
            left=$((left + 1))
        elif ((passes && !fails)); then
            passed=$((passed + 1))
        elif ((passes)) && [[ $uncertain == *" $test "* ]]; then
            passed=$((passed + 1))
            twice+=("$test failed $fails of $((passes + fails)) times")
        else
            failed+=("$test $( ((fails)) && echo failed || echo 'did not come to its end')")
        fi
    done
    panics=$(grep -ac "panicked at " "$text" || true)
    ((panics == 0)) || failed+=("$panics panics")
    printf -v row '%-12s %-12s %4d passed %3d failed %3d skipped' "${pair%/*}" "${pair#*/}" "$passed" "${#failed[@]}" "$left"
    ((${#twice[@]} == 0)) || row+="   (${twice[*]})"
    if ((${#failed[@]})); then
        if [[ $pair != *ours* ]]; then row+="   does not count"; else row+="   <-- FAILED"; bad=1; fi
        printf '\n-- %s, logs: %s\n' "$pair" "$2.*"
        printf '   %s\n' "${failed[@]}"
        grep -aE '_test.go:[0-9]+: |panicked at |^panic: ' "$text" | head -n 30 || true
    fi
    rows+=("$row")
}

echo "suite: building"
bins=()
if [ -z "$ours" ]; then
    ours=$target/$profile
    [[ " ${pairs[*]}" != *" ours/"* ]] || bins+=(-p konnectivity-agent --bin proxy-agent)
    [[ "${pairs[*]} " != *"/ours "* ]] || bins+=(-p konnectivity-server --bin proxy-server)
    ((${#bins[@]} == 0)) || cargo build --locked --profile "${profile/debug/dev}" "${bins[@]}"
fi
[[ ${pairs[*]} != *go-program* ]] || scripts/go-peers.sh --quiet
build_tests
mkdir -p "$logs"

mapfile -t tests < <("$go/suite" -test.list "$wanted" 2>/dev/null | grep ^Test)
((${#tests[@]})) || { echo "suite: no test is called like '$wanted'" >&2; exit 2; }

rows=() bad=
for run in $(seq "$runs"); do
    jobs=() ends=()
    # Each job a process group of its own, to be ended as one.
    set -m
    for pair in "${pairs[@]}"; do
        rm -f "$logs/${pair/\//-}.$run".*log
        start_all "$pair" "$logs/${pair/\//-}.$run"
        ends+=("${#jobs[@]}")
    done
    set +m
    rows+=("run $run of $runs, started after $SECONDS s")
    next=0
    for index in "${!pairs[@]}"; do
        # How each process ended is not asked: a test without a result has failed, and the others say how they went.
        for ((; next < ends[index]; next++)); do wait "${jobs[$next]}" || true; done
        judge "${pairs[$index]}" "$logs/${pairs[$index]/\//-}.$run"
    done
    jobs=()
done
printf '\n%-12s %-12s\n' agent server
printf '%s\n' "${rows[@]}"
echo "not as they are (reasons in $exceptions):"
grep -v '^#' "$exceptions" | cut -d' ' -f1-3 | sed 's/^/  /' || true
echo "the logs are in $logs; $SECONDS s"
[ -z "$bad" ]
