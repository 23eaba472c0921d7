#!/bin/busybox sh
# In a guest of debianguest.py: makes a root of the disk at /work, and goes on there with the command
# that it is given.
cd /work || exit 1
mkdir -p proc sys dev tmp run root etc var/tmp
for dir in proc sys dev; do mount -o bind /$dir $dir; done
mkdir -p dev/shm
mount -t tmpfs tmpfs dev/shm
chmod 666 dev/kvm
ln -s /proc/self/fd dev/fd
ip link set lo up
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' >etc/group
printf '127.0.0.1 localhost\n' >etc/hosts
ln -s usr/bin bin
for applet in $(/bin/busybox --list); do
    [ -e "usr/bin/$applet" ] || ln -s busybox "usr/bin/$applet"
done
exec chroot /work "$@"
