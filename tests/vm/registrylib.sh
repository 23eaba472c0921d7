# Registries of Debian's docker-registry for the tests, on loopback. Sourced after lib.sh.

registry_pids=()

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# registry_start NAME [EXTRA LINES OF THE SECTION http [OTHER SECTIONS]]: sets $port and $registry.
registry_start() {
    local name=$1 http=${2:-} more=${3:-}
    port=$(free_port)
    registry=127.0.0.1:$port
    cat >"$tmp/$name.yml" <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $tmp/$name.data}, delete: {enabled: true}}
http:
  addr: $registry
  secret: not-secret
$http
$more
END
    docker-registry serve "$tmp/$name.yml" >"$tmp/$name.log" 2>&1 </dev/null &
    registry_pids+=($!)
    eventually 20 registry_listens "$port" || {
        diag "the registry does not listen" "$(tail -n 20 "$tmp/$name.log")"
        exit 1
    }
}

registry_listens() {
    (: <"/dev/tcp/127.0.0.1/$1")
}

registries_end() {
    local p
    for p in "${registry_pids[@]}"; do kill "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
    registry_pids=()
}

# served NAME PATTERN: how many requests like that it has answered.
served() {
    grep -cE "$2" "$tmp/$1.log"
}

# make_image NAME [OPTIONS OF makeimage.py]: the layout $tmp/images/NAME.
make_image() {
    local name=$1
    shift
    mkdir -p "$tmp/images"
    python3 "$here/makeimage.py" "$tmp/images/$name" "$@"
}

# put NAME REFERENCE [OPTIONS OF skopeo copy]: skopeo puts the layout there.
put() {
    local name=$1 reference=$2
    shift 2
    within 120 skopeo copy -q --all --dest-tls-verify=false "$@" "oci:$tmp/images/$name" \
        "docker://$reference"
}

skopeo_digest() {
    within 60 skopeo inspect --tls-verify=false --raw "$@" | sha256sum | cut -d' ' -f1
}
