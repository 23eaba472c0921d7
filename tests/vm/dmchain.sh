# What dmchain.test runs in its guest, in the root that dmroot.sh makes. Prints TAP.
export PATH=/usr/bin HOME=/root LC_CTYPE=C.UTF-8 HUSK_BUILD=/husk
# Everything is emulated, and has one CPU less than it needs.
export HUSK_TEST_SLOWER=4 HUSK_TEST_SETTINGS="--accel=kvm --boot_deadline=5m"
here=/test
. "$here/lib.sh"
. "$here/registrylib.sh"
. "$here/chainlib.sh"

exec 2> >(cat) # the console is a terminal, on which husk would show how long it waits

free_port() {
    echo 5000
}

mkdir "$tmp/images"
cp -r /test/small "$tmp/images/small"
registry_start plain
put small "$registry/small:1"
chain devicemapper
registries_end
