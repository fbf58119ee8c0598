#!/usr/bin/env bash
# Runs every fuzz target for a short while. Needs nothing but the ordinary toolchain and a C++ compiler.
#
#   scripts/fuzz.sh [seconds for each target, default 10] [target ...]
#
# With a nightly toolchain and cargo-fuzz, `cargo fuzz run control` in transport/ works too.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz.sh: '$seconds' is not a number of seconds" >&2; exit 2; }
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
    for file in transport/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# Above the largest message (64 KiB and its prefix), so that the limits are reached.
max_len=70000

# What cargo-fuzz would pass, without the sanitizer that only nightly has. `--target` keeps the flags away from build
# scripts and procedural macros, which could not be linked with them. Comparisons of strings stay calls, which libFuzzer
# watches to learn what the code compares its input with.
host=$(rustc -vV | sed -n 's/^host: //p')
folder=$PWD/target/fuzz
export RUSTFLAGS="${RUSTFLAGS:-} --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
-Cllvm-args=-max-loads-per-memcmp=0"
cargo build --release --manifest-path transport/fuzz/Cargo.toml --target "$host" --target-dir "$folder" --bins

for target in "${targets[@]}"; do
    [[ -f transport/fuzz/fuzz_targets/$target.rs ]] || { echo "fuzz.sh: there is no target '$target'" >&2; exit 2; }
    program=$folder/$host/release/$target
    artifacts=$folder/artifacts/$target log=$folder/$target.log
    corpora=("$folder/corpus/$target")
    [[ -d transport/fuzz/seeds/$target ]] && corpora+=("transport/fuzz/seeds/$target")
    mkdir -p "${corpora[0]}" "$artifacts"
    if ! "$program" "${corpora[@]}" -max_len=$max_len -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="$artifacts/" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "fuzz.sh: $target FAILED; the input is in $artifacts, run it again with: $program <input>" >&2
        exit 1
    fi
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz.sh: $target ok, $runs runs in $seconds s, ${coverage:-no coverage}"
done
