#!/usr/bin/env bash
# Installs or names what is missing.
#
# usage: scripts/need.sh PROGRAM ...
set -euo pipefail

package() { # the Debian package that has a program
    case $1 in
        cc | c++) echo build-essential ;;
        aarch64-linux-gnu-gcc) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
        aarch64-linux-gnu-strip) echo binutils-aarch64-linux-gnu ;;
        diff) echo diffutils ;;
        go) echo golang-go ;;
        ip) echo iproute2 ;;
        nft) echo nftables ;;
        readelf) echo binutils ;;
        sha256sum | mktemp) echo coreutils ;;
        chrt | unshare) echo util-linux ;;
        ssh) echo openssh-client ;;
        sshd) echo openssh-server ;;
        sysctl) echo procps ;;
        *) echo "$1" ;;
    esac
}

missing=()
for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
((${#missing[@]})) || exit 0

packages=()
for program in "${missing[@]}"; do
    if [ "$program" = cargo ]; then
        echo "need: there is no Rust toolchain; see rust-toolchain.toml and https://rustup.rs" >&2
        exit 1
    fi
    read -ra names <<<"$(package "$program")"
    packages+=("${names[@]}")
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "need: installing ${packages[*]}"
    apt-get update -qq && apt-get install -y -qq "${packages[@]}" >/dev/null
else
    echo "need: ${missing[*]} missing; install: apt-get install ${packages[*]}" >&2
    exit 1
fi
