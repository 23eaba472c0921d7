#!/bin/busybox sh
# What quota.test runs in its guest, from the disk that is mounted at /work: `enter` makes a root of
# it, and goes on there. Prints TAP.
if [ "$1" = enter ]; then
    cd /work || exit 1
    mkdir -p proc sys dev tmp run root etc mnt/ext4 mnt/xfs
    for dir in proc sys dev; do mount -o bind /$dir $dir; done
    mkdir -p dev/shm
    mount -t tmpfs tmpfs dev/shm
    chmod 666 dev/kvm
    printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >etc/passwd
    printf 'root:x:0:\nnogroup:x:65534:\n' >etc/group
    ln -s usr/bin bin
    for applet in sh sed grep ls cat mkdir sleep kill wc head tail truncate losetup timeout mount umount awk rm df; do
        ln -s busybox usr/bin/$applet
    done
    exec chroot /work /bin/sh /test.sh
fi

export PATH=/usr/bin:/husk HOME=/root HUSK_SOCKET=/run/sock LC_ALL=C.UTF-8
tests=0
failures=0

is() {
    tests=$((tests + 1))
    if [ "$2" = "$3" ]; then echo "ok $tests - $1"; return; fi
    failures=$((failures + 1))
    echo "not ok $tests - $1"
    printf 'wanted: %s\ngot:    %s\n' "$2" "$3" | sed 's/^/# /'
}

ok() {
    local name=$1
    shift
    "$@" >/tmp/out 2>&1
    is "$name" 0 $?
    sed 's/^/# /' /tmp/out
}

# eventually SECONDS command …
eventually() {
    local left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}

# Not more than this emulated machine can need.
within() {
    timeout 240 "$@"
}

images_are_there() {
    [ "$(husk images -q | wc -l)" != 0 ]
}

daemon_start() { # ROOT
    /husk/huskd --root "$1" --socket /run/sock --templates=off --accel=kvm --boot_deadline=5m \
        --storage=overlay >>/tmp/log 2>&1 </dev/null &
    daemon=$!
    eventually 60 images_are_there
}

daemon_end() {
    kill "$daemon"
    wait "$daemon"
}

# The suite's results, in our row.
suite() { # FILE SYSTEM
    local line
    mkdir "/mnt/$1/suite"
    disk_suite quota "/mnt/$1/suite" >/tmp/suite 2>&1
    is "$1: the suite runs to its end" "1..$(grep -cE '^(not )?ok ' /tmp/suite)" "$(grep '^1\.\.' /tmp/suite)"
    while read -r line; do
        case $line in
            "ok "*) is "$1: ${line#ok * - }" 0 0 ;;
            "not ok "*) is "$1: ${line#not ok * - }" 0 1 ;;
            "#"*) echo "$line" ;;
        esac
    done </tmp/suite
}

truncate -s 3G /ext4
/usr/bin/mke2fs -q -F -t ext4 -O quota,project -E quotatype=prjquota,lazy_itable_init=1 /ext4
ok "ext4 counts by project" mount -t ext4 -o loop,prjquota,nobarrier /ext4 /mnt/ext4
suite ext4
umount /mnt/ext4
truncate -s 3G /xfs
/usr/bin/mkfs.xfs -q /xfs
ok "xfs counts by project" mount -t xfs -o loop,prjquota /xfs /mnt/xfs
suite xfs

# ---- a pod --------------------------------------------------------------------------------------

daemon_start /mnt/xfs/husk
is "a pod runs in 32 MiB" 32.0M \
    "$(within husk run -d --name small --storage-opt size=32M busybox sleep 1000 >/tmp/out 2>&1
       within husk exec small df -h / 2>&1 | awk 'END { print $2 }')"
full=$(within husk exec small dd if=/dev/zero of=/fill bs=1M count=64 2>&1)
is "a write that does not fit is told that there is no room" "No space left on device" "$(echo "$full" | grep -o 'No space.*')"
is "what fitted is there" 1 "$(within husk exec small sh -c 'test $(stat -c %s /fill) -gt 20000000 && echo 1')"
ok "what is removed" within husk exec small rm /fill
ok "makes room" eventually 60 within husk exec small dd if=/dev/zero of=/again bs=1M count=8
within husk rm -f small >/dev/null 2>&1
daemon_end
umount /mnt/xfs

daemon_start /root/husk
is "where there are no quotas a size is refused, with the reason and the way out" 1 \
    "$(within husk create --storage-opt size=32M busybox true 2>&1 | grep -c "file system of '/root/husk' has no project quotas: mount .* prjquota, leave the size out, or set storage=block")"
is "and nothing is left of it" 0 "$(ls /root/husk/pods | wc -l)"
daemon_end

echo "1..$tests"
[ "$failures" = 0 ] || sed 's/^/# huskd: /' /tmp/log
[ "$failures" = 0 ]
