# What the tests of templates have in common. Sourced by them after lib.sh.
#
# Their QEMU is a stand-in that runs the real one, unless a fault is ordered by a file of that name:
#   $tmp/refuse          a clone's QEMU ends at once
#   $tmp/hang            a clone's QEMU does nothing
#   $tmp/hang-template   the same of every other QEMU
#   $tmp/hold-template   every other QEMU waits until that is gone
# It is a file of the test's own, so that it can be touched: a template depends on it.

[ "$(dirname "$tmp")" = /tmp ] || chmod 711 "$(dirname "$tmp")"
chmod 711 "$tmp" # QEMU's user is not ours
real=$(command -v qemu-system-x86_64)
cat >"$tmp/qemu" <<EOF
#!/bin/sh
case " \$* " in
*" -incoming "*)
    [ ! -e "$tmp/refuse" ] || { echo "no clones today" >&2; exit 1; }
    [ ! -e "$tmp/hang" ] || exec sleep 1000 ;;
*)
    [ ! -e "$tmp/hang-template" ] || exec sleep 1000
    while [ -e "$tmp/hold-template" ]; do sleep 0.1; done ;;
esac
exec "$real" "\$@"
EOF
chmod 755 "$tmp/qemu"

templates_start() { # one template, of 128 MiB, and none of images unless it is said
    daemon_start --templates=on --zygotes=0 --template_images=off --template_sizes=128MiB --qemu="$tmp/qemu" --clone_deadline=60s "$@"
}

zygotes_start() { # the same with zygotes, and the real QEMU: a zygote runs no other program
    daemon_start --accel=tcg --templates=on --zygotes=4 --template_images=off --template_sizes=128MiB "$@"
}

# Everything that follows needs it.
template_awaited() {
    ok "$1" eventually 180 template_is ready
    template_is ready || exit 1
}

template() { # FIELD of the template of 128 MiB
    within 20 "$husk" template ls -o json | jq -r --arg f "$1" '.[] | select(.memory == 128 and .image == "") | .[$f]'
}

template_is() { # STATE
    [ "$(template state)" = "$1" ]
}

template_step_is() { # STEP of its making
    [ "$(template step)" = "$1" ]
}

pod_is() { # POD STATUS
    [ "$(within 20 "$husk" list -o json pod | jq -r --arg id "$1" '.[] | select(.id == $id) | .status')" = "$2" ]
}

cloned_of() { # POD
    within 20 "$husk" list vm -o json | jq -r --arg pod "$1" '.[] | select(.pod == $pod) | .template'
}

events_of() { # POD
    within 20 "$husk" events -o json | jq -r --arg pod "$1" 'select(.name == $pod) | .reason + ": " + .message'
}

# Processes of a program (a pattern of pgrep) that work in a directory that matches.
process_in() { # DIRECTORY PROGRAM
    local p
    for p in $(pgrep -x "$2"); do
        # shellcheck disable=SC2254
        case "$(readlink "/proc/$p/cwd")" in "$root"$1) echo "$p" ;; esac
    done
}

# Each VM that is listed has a directory and a QEMU, and there is no other but zygotes; nothing of a
# template is half made.
nothing_left() {
    local vms dirs qemus zygotes
    vms=$("$husk" list -q vm | sort)
    dirs=$(find "$root/vms" -mindepth 1 -maxdepth 1 ! -name 'zyg-*' -printf '%f\n' | sort)
    [ "$vms" = "$dirs" ] || { echo "VMs: $vms; directories: $dirs"; return 1; }
    qemus=$(process_in '/vms/*' 'qemu-system-x86|sleep' | grep -c .)
    zygotes=$(find "$root/vms" -mindepth 1 -maxdepth 1 -name 'zyg-*' | grep -c .)
    [ "$qemus" = "$((zygotes + $(printf '%s' "$vms" | grep -c .)))" ] || { echo "$qemus QEMUs of $zygotes zygotes and VMs: $vms"; return 1; }
    [ -z "$(find "$root/templates" -mindepth 1 -maxdepth 1 -name '.*')" ] || { ls -a "$root/templates"; return 1; }
}
