# An image's way through everything: pulled, run, changed, committed, pushed, read by skopeo, pulled
# by another daemon with an empty store, and run there. Sourced after lib.sh and registrylib.sh, when
# there is a registry that has small:1, an image of makeimage.py with three layers.
#
#   chain DRIVER      with that storage driver; the other daemon has another one

daemon_on() {
    case "$1" in
        devicemapper)
            daemon_start "--storage=$1" --layer_size=128M \
                --storage_opt=dm.basesize=128M,dm.loopdatasize=512M,dm.loopmetadatasize=16M ;;
        *) daemon_start "--storage=$1" ;;
    esac
}

# The driver of the daemon that gets what this one's daemon has made.
other() {
    case "$1" in block) echo overlay ;; *) echo block ;; esac
}

chain() {
    local driver=$1 id digest out
    root=$tmp/$driver
    daemon_on "$driver"
    ok "$driver: the image is pulled" within 120 "$husk" pull -q "$registry/small:1"
    within 120 "$husk" run -d --name box "$registry/small:1" sh -c \
        'echo changed >/layer/1; echo fresh >/fresh; rm -r /bin/touch /layer/0; exec sleep 1000' >/dev/null
    ok "$driver: it runs, and changes its files" \
        eventually 60 within 20 "$husk" exec box sh -c 'cat /fresh && ! ls /layer/0'
    id=$(within 120 "$husk" commit -c 'CMD ["cat", "/layer/1"]' box "$registry/$driver:1" 2>&1)
    has "$driver: an image is made of it" '^sha256:[0-9a-f]{64}$' "$id"
    out=$(within 120 "$husk" push "$registry/$driver:1" 2>&1)
    digest=$(skopeo_digest "docker://$registry/$driver:1")
    has "$driver: it is pushed" "^1: digest: sha256:$digest size: " "$out"
    is "$driver: with one layer more" 4 \
        "$(within 60 skopeo inspect --tls-verify=false "docker://$registry/$driver:1" | jq '.Layers | length')"
    is "$driver: the others are those of the image" "$(layers small)" "$(layers "$driver" | head -n 3)"
    within 60 "$husk" rm -f box >/dev/null
    daemon_end

    root=$tmp/$driver-then-$(other "$driver")
    daemon_on "$(other "$driver")"
    within 120 "$husk" pull -q "$registry/$driver@sha256:$digest" >/dev/null
    is "$driver: an empty store gets the same image" "$id" \
        "$(within 20 "$husk" inspect "$registry/$driver@sha256:$digest" | jq -r '.[0].id')"
    out=$(within 120 "$husk" run --name again "$registry/$driver@sha256:$digest" sh -c \
        'cat /layer/1 /fresh /layer/2 /history; ls /layer /bin/touch' 2>&1)
    is "$driver: which has what was changed, with $(other "$driver")" "changed fresh 2 0 1 2 1 2" \
        "$(grep -v touch <<<"$out" | sed '/^\/layer:$/d;/^$/d' | paste -sd' ')"
    has "$driver: and not what was removed" 'ls: /bin/touch: No such file' "$out"
    within 60 "$husk" rm -f again >/dev/null
    daemon_end
}

# The layers of an image of the registry, from the lowest.
layers() {
    within 60 skopeo inspect --tls-verify=false "docker://$registry/$1:1" | jq -r '.Layers[]'
}
