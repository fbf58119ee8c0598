#!/usr/bin/env bash
# Makes the container images of proxy-server and proxy-agent from nothing but this tree, Debian's packages and Rust's
# standard library; needs no network for base images, there are none.
#
# usage: scripts/image.sh [--arch amd64|arm64 ...] [--tag TAG] [--output FOLDER] [--names] [--check]
#
# --arch    may be given twice; this machine's architecture if it is not given
# --tag     of the images, default: the version in Cargo.toml
# --output  where the images go, as archives of the OCI layout: FOLDER/proxy-agent.tar, one for all architectures
#           (default target/images). `skopeo copy --all oci-archive:FILE docker://REGISTRY/proxy-agent:TAG` pushes one
# --names   leaves the names of functions in the programs, 2.5 MB each: CPU profiles (--enable-profiling) need them
# --check   runs the programs from within the images of this machine's architecture, as their user: a dial through both,
#           with names from /etc/hosts and from DNS. Needs root
#
# The programs are linked statically with glibc, not with musl: it is the library that everything else is tested with, its
# memory allocator does not make the server's threads wait for each other, and since 2.34 it resolves names from files and
# DNS without loading anything. That the linker warns of getaddrinfo is about the other sources, which
# deploy/image/root/etc/nsswitch.conf leaves out.
set -euo pipefail
cd "$(dirname "$0")/.."

machine=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
architectures=() check= names= output=${CARGO_TARGET_DIR:-$PWD/target}/images
tag=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
while (($#)); do
    case $1 in
        --arch) architectures+=("${2:?--arch needs amd64 or arm64}"); shift ;;
        --tag) tag=${2:?--tag needs a tag}; shift ;;
        --output) output=${2:?--output needs a folder}; shift ;;
        --names) names=1 ;;
        --check) check=1 ;;
        -h | --help) sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "image: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done
((${#architectures[@]})) || architectures=("$machine")
most_bytes=15000000
programs=(proxy-server proxy-agent)
authorities=/etc/ssl/certs/ca-certificates.crt

say() { printf 'image: %s\n' "$*"; }
fail() { echo "image: $*" >&2; exit 1; }
scripts/need.sh cargo cc buildah readelf
[ -s "$authorities" ] || fail "no $authorities; install Debian's ca-certificates"

work=$(mktemp -d "${TMPDIR:-/tmp}/konnectivity-image.XXXXXX")
# Nothing of this machine's own images is touched.
buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
cleanup() {
    "${buildah[@]}" umount --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

build() { # ARCHITECTURE: the programs, into $work/ARCHITECTURE
    local target strip=strip flags lld
    case $1 in
        amd64) target=x86_64-unknown-linux-gnu ;;
        arm64) target=aarch64-unknown-linux-gnu ;;
        *) fail "no architecture '$1'; there are amd64 and arm64" ;;
    esac
    if [ "$1" != "$machine" ]; then
        [ "$1" = arm64 ] || fail "amd64 is built on amd64 only"
        scripts/need.sh aarch64-linux-gnu-gcc aarch64-linux-gnu-strip
        strip=aarch64-linux-gnu-strip
        export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    fi
    if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
        rustup target add "$target" || fail "no standard library for $target"
    fi
    # Relocations are packed, which makes 0.7 MB less; glibc knows it since 2.36. arm64 has none: Rust makes static programs
    # position-independent on x86-64 only.
    flags="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"
    # Rust's own linker for both; on x86-64 it is the default.
    lld=$(rustc --print sysroot)/lib/rustlib/$(rustc --version --verbose | sed -n 's/^host: //p')/bin/gcc-ld
    [ "$1" = amd64 ] || [ ! -d "$lld" ] || flags+=" -C link-arg=-B$lld -C link-arg=-fuse-ld=lld"
    say "building for $1"
    # For the target only: what runs while building must be able to load macros.
    RUSTFLAGS=$flags cargo build --locked --profile image --target "$target" \
        -p konnectivity-server -p konnectivity-agent --bin proxy-server --bin proxy-agent
    for program in "${programs[@]}"; do
        mkdir -p "$work/$1/$program"
        cp "${CARGO_TARGET_DIR:-target}/$target/image/$program" "$work/$1/$program/"
        [ -n "$names" ] || "$strip" --strip-all "$work/$1/$program/$program"
        ! readelf --dynamic "$work/$1/$program/$program" | grep NEEDED || fail "$program is not static"
        cp -r deploy/image/root "$work/$1/$program/root"
        mkdir -p "$work/$1/$program/root/etc/ssl/certs"
        cp --dereference "$authorities" "$work/$1/$program/root/etc/ssl/certs/"
        chmod -R u=rwX,go=rX "$work/$1/$program"
    done
}

bytes() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }'; }

for architecture in "${architectures[@]}"; do build "$architecture"; done
mkdir -p "$output"
for program in "${programs[@]}"; do
    "${buildah[@]}" manifest create "$program:$tag" >/dev/null
    for architecture in "${architectures[@]}"; do
        "${buildah[@]}" build --quiet --isolation chroot --arch "$architecture" --timestamp 0 \
            --label org.opencontainers.image.title="$program" --label org.opencontainers.image.version="$tag" \
            --file "deploy/image/$program.Containerfile" --tag "$program:$tag-$architecture" "$work/$architecture/$program" >/dev/null
        "${buildah[@]}" manifest add "$program:$tag" "containers-storage:localhost/$program:$tag-$architecture" >/dev/null
        container=$("${buildah[@]}" from "$program:$tag-$architecture")
        size=$(bytes "$("${buildah[@]}" mount "$container")")
        say "$program for $architecture: $size bytes"
        [ -n "$names" ] || ((size <= most_bytes)) || fail "$program for $architecture has $size bytes; $most_bytes are the most"
    done
    rm -f "$output/$program.tar"
    "${buildah[@]}" manifest push --quiet --all --format oci "$program:$tag" "oci-archive:$output/$program.tar:$program:$tag" >/dev/null
    say "$output/$program.tar: $(stat --format %s "$output/$program.tar") bytes, for ${architectures[*]}"
done

[ -n "$check" ] || exit 0
say "running the programs of the images"
cargo build --quiet --locked -p konnectivity-server -p konnectivity-agent -p konnectivity-interop --bin certs
for program in "${programs[@]}"; do
    container=$("${buildah[@]}" from "$program:$tag-$machine")
    ln -s "$("${buildah[@]}" mount "$container")" "$work/$program"
done
# A network of its own: the check listens on port 53, and no packet leaves this machine. Mounts of its own go with it.
unshare --net --mount scripts/image-check.sh "${CARGO_TARGET_DIR:-$PWD/target}/debug/certs" "$work/proxy-server" "$work/proxy-agent"
