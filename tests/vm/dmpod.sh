#!/bin/busybox sh
# What dmpod.test runs in its guest, in the root that dmroot.sh makes. Prints TAP.
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

daemon_start() {
    /husk/huskd --root /root/husk --socket /run/sock --templates=off --accel=kvm --boot_deadline=5m \
        --storage=devicemapper --layer_size=96M "$@" >>/tmp/log 2>&1 </dev/null &
    daemon=$!
    eventually 60 images_are_there
}

images_are_there() {
    [ "$(husk images -q | wc -l)" != 0 ]
}

daemon_end() {
    kill "$daemon"
    wait "$daemon"
}

# nodes: devices of images and containers, which only running ones have.
nodes() {
    dmsetup ls | grep -cE '^husk-.*-[0-9]+[[:space:]]' || :
}

# devices: that the pool keeps.
devices() {
    ls /root/husk/devicemapper/devices | wc -l
}

no_devices_but() {
    [ "$(devices)" = "$1" ]
}

happened() {
    husk events --filter reason="$1" | grep -q .
}

# ---- the daemon's own pool --------------------------------------------------------------------

sizes=dm.basesize=64M,dm.loopdatasize=64M,dm.loopmetadatasize=8M,dm.min_free_space=5%
daemon_start --storage_opt=$sizes
ok "an image is loaded into the pool" within husk load -i /ballast.tar
within husk create --name web busybox sh -c 'echo kept >>/file; exec sleep 1000' >/dev/null 2>&1
is "what is created is in the pool" 3 "$(devices)"
is "and has no node in /dev" 0 "$(nodes)"
ok "it starts" within husk start web
is "and has a node" 1 "$(nodes)"
ok "a container writes to it" eventually 60 within husk exec web grep kept /file
ok "it stops" within husk stop -t 1 web
is "and has no node any more" 0 "$(nodes)"
ok "an image is made of it" within husk commit web kept:1
ok "which has a device, and what was compared has none" eventually 60 no_devices_but 4
is "nor a node" 0 "$(nodes)"
ok "the image goes again" within husk rmi kept:1
ok "with its device" eventually 60 no_devices_but 3
ok "it starts again" within husk start web
is "with its data" kept "$(within husk exec web head -n 1 /file 2>&1)"

within husk exec web dd if=/dev/zero of=/fill bs=1M count=48 conv=fsync >/tmp/fill 2>&1 &
writer=$!
ok "a pool that is full is told of" eventually 200 happened DiskFull
is "and its pod is paused" paused "$(husk list pod | grep -o paused)"
ok "an image that nobody needs makes room" within husk rmi ballast:1
ok "its device is gone" eventually 60 no_devices_but 2
ok "the pod goes on" within husk unpause web
wait $writer
is "and nothing that it wrote is lost" "0 50331648" "$? $(within husk exec web stat -c %s /fill 2>&1)"
ok "it is removed" within husk rm -f web
ok "with its device" eventually 60 no_devices_but 1
is "and its node" 0 "$(nodes)"
within husk rmi busybox >/dev/null 2>&1
eventually 60 no_devices_but 0
daemon_end
is "an empty pool leaves nothing active" "No devices found" "$(dmsetup ls)"

# ---- a pool that is given ---------------------------------------------------------------------

mv /root/husk /root/before
truncate -s 8M /root/metadata
truncate -s 128M /root/data
metadata=$(losetup -f) && losetup "$metadata" /root/metadata
data=$(losetup -f) && losetup "$data" /root/data
dmsetup create given --table "0 262144 thin-pool $metadata $data 128 0 1 error_if_no_space"
rm -f /dev/mapper/given # without udev it may have none
daemon_start --storage_opt=dm.thinpooldev=given,dm.basesize=64M
is "a container runs in a pool that is given, and that has no node" hello "$(within husk run --rm busybox echo hello 2>/tmp/out)"
is "which has no file of the daemon's" "devices lock" "$(echo $(ls /root/husk/devicemapper))"
ok "its device is gone from there" eventually 60 no_devices_but 1
daemon_end
is "and the pool stays" given "$(dmsetup ls | sed 's/\s.*//')"

echo "1..$tests"
[ "$failures" = 0 ] || sed 's/^/# huskd: /' /tmp/log
[ "$failures" = 0 ]
