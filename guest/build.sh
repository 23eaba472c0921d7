#!/bin/sh
# Builds what a guest boots from: the kernel of Debian's cloud kernel package (downloaded and
# unpacked here, never installed), an initramfs with husk-init, and the image busybox:latest.
#
#   guest/build.sh OUT     e.g. build/guest
#
# leaves OUT/vmlinux, OUT/initramfs.cpio and OUT/busybox.tar. The same inputs give the same bytes.
# A step whose inputs did not change is skipped, by a hash kept in OUT/stamp. husk-init is compiled
# here, with musl-gcc, and not by meson: it is the only program for another C library.
#
#   HUSK_KERNEL_DEB=FILE   takes this package instead of downloading one
#   HUSK_CACHE=DIR         where the package is kept (OUT/cache); with it there, no network is needed
#   HUSK_INIT_CC=PROGRAM   the compiler (musl-gcc)
set -eu

fail() {
    echo "guest: $*" >&2
    exit 1
}

[ $# -eq 1 ] || fail "usage: guest/build.sh OUTPUT-DIRECTORY"
here=$(cd "$(dirname "$0")" && pwd)
src=$here/../src
mkdir -p "$1/stamp" || fail "cannot make the directory '$1'"
out=$(cd "$1" && pwd)
cache=${HUSK_CACHE:-$out/cache}
cc=${HUSK_INIT_CC:-musl-gcc}
busybox=/bin/busybox

for tool in "$cc:musl-tools" dpkg-deb:dpkg lz4:lz4 python3:python3 sha256sum:coreutils; do
    command -v "${tool%%:*}" >/dev/null ||
        fail "'${tool%%:*}' is missing: install the Debian package ${tool##*:}"
done
[ -x $busybox ] || fail "$busybox is missing: install the Debian package busybox-static"

# changed NAME FILE…: true if a product is missing or its inputs are not those of the last time.
changed() {
    name=$1
    shift
    hash=$(cat "$@" | sha256sum)
    [ -e "$out/$name" ] && [ "$(cat "$out/stamp/$name" 2>/dev/null)" = "$hash" ] && return 1
    rm -f "$out/stamp/$name"
    return 0
}

# made NAME: remembers the inputs of the last changed().
made() {
    echo "$hash" >"$out/stamp/$1"
    echo "guest: made $out/$1"
}

# ---- the kernel's package ------------------------------------------------------------------------

kernel_download() {
    command -v apt-get >/dev/null ||
        fail "no apt-get to download a kernel with: set HUSK_KERNEL_DEB to a linux-image package"
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
    [ -n "$package" ] ||
        fail "package linux-image-cloud-amd64 is not known here: run 'apt-get update' first"
    echo "guest: downloading $package"
    rm -rf "$cache/new"
    mkdir -p "$cache/new"
    # As root, apt-get warns when its own user cannot write here; it need not change to it.
    (cd "$cache/new" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$package" >/dev/null) ||
        fail "cannot download $package: without network, put the package into '$cache'"
    mv "$cache"/new/*.deb "$cache/"
    rmdir "$cache/new"
}

kernel_cached() {
    find "$cache" -maxdepth 1 -name 'linux-image-*.deb' 2>/dev/null | sort -V | tail -n 1
}

deb=${HUSK_KERNEL_DEB:-$(kernel_cached)}
if [ -z "$deb" ]; then
    kernel_download
    deb=$(kernel_cached)
fi
[ -r "$deb" ] || fail "the kernel's package '$deb' cannot be read"

if changed vmlinux "$deb" "$here/pack.py" || [ ! -d "$out/kernel" ]; then
    rm -rf "$out/kernel"
    dpkg-deb -x "$deb" "$out/kernel" ||
        fail "the kernel's package '$deb' cannot be unpacked: remove it to download it again"
    image=$(find "$out/kernel/boot" -name 'vmlinuz-*' | head -n 1)
    [ -n "$image" ] || fail "no kernel in '$deb'"
    python3 "$here/pack.py" vmlinux "$image" "$out/vmlinux"
    made vmlinux
fi

# ---- husk-init -----------------------------------------------------------------------------------

sources="$(ls "$src"/init/*.c | grep -v -e '_test\.c$')"
sources="$sources $src/base/error.c $src/base/str.c $src/base/buf.c $src/proto/wire.c"
version=$(sed -n "s/^ *version: '\(.*\)',.*/\1/p" "$here/../meson.build" | head -n 1)

if changed husk-init $sources "$src"/init/*.[ch] "$src"/base/*.[hd]* "$src"/proto/*.[hd]* "$0"; then
    # musl comes without the kernel's headers: those of the system are looked at last. What -Os
    # makes of a memcpy of unknown size goes byte by byte in an emulated CPU.
    "$cc" -static -Os -mstringop-strategy=libcall -std=gnu11 -D_GNU_SOURCE -DHUSK_VERSION="\"$version\"" -I"$src" \
        -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu \
        -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 \
        -Wpointer-arith -Wwrite-strings -Wundef -Wvla -Wno-unused-parameter \
        -fno-strict-aliasing -fstack-protector-strong -ffunction-sections -fdata-sections \
        -Wl,--gc-sections -Wl,--build-id=none -s -o "$out/husk-init" $sources ||
        fail "husk-init does not compile"
    made husk-init
fi

# ---- what the guest boots from, and the image -----------------------------------------------------

if changed initramfs.cpio "$out/husk-init" "$out/vmlinux" "$here/modules" "$here/pack.py" $busybox; then
    python3 "$here/pack.py" initramfs "$here/modules" "$out/kernel/lib/modules" \
        "$out/husk-init" $busybox "$out/initramfs.cpio"
    made initramfs.cpio
fi

if changed busybox.tar $busybox "$here/pack.py"; then
    python3 "$here/pack.py" busybox $busybox "$out/busybox.tar"
    made busybox.tar
fi
