# Shell part of the VM tests: TAP, and a private huskd. Sourced by tests/vm/*.test.
#
# A test script says:
#   . "$(dirname "$0")/lib.sh"
#   daemon_start [--setting=value …]   without templates, whose making would take the CPUs of what
#                                      is tested: who wants them says --templates=on
#   ok "a sentence" command …          passes if the command succeeds
#   is "a sentence" WANTED GOT         passes if the two are equal
#   has "a sentence" PATTERN TEXT      passes if TEXT matches the extended regular expression
# and ends by itself: daemons are ended, what is left of them is a failed test.
#
# HUSK_BUILD is the build directory. Every wait has a deadline, which HUSK_TEST_SLOWER multiplies.
# HUSK_TEST_SETTINGS are further settings of each daemon.

set -u
: "${HUSK_BUILD:?names the build directory}"
HUSK_BUILD=$(cd "$HUSK_BUILD" && pwd)
husk=$HUSK_BUILD/husk
huskd=$HUSK_BUILD/huskd
tmp=$(mktemp -d "${TMPDIR:-/tmp}/husk-test.XXXXXX")
root=$tmp/root
sock=$tmp/sock
export HUSK_SOCKET=$sock
slower=${HUSK_TEST_SLOWER:-1}
huskd_pid=
tests=0
failures=0

diag() {
    printf '%s\n' "$*" | sed 's/^/# /'
}

pass() {
    tests=$((tests + 1))
    echo "ok $tests - $1"
}

fail() {
    tests=$((tests + 1))
    failures=$((failures + 1))
    echo "not ok $tests - $1"
    shift
    diag "$@"
}

ok() {
    local name=$1 out rc
    shift
    out=$("$@" 2>&1) && rc=0 || rc=$?
    if [ "$rc" = 0 ]; then pass "$name"; else fail "$name" "exit $rc: $*" "$out"; fi
}

is() {
    if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "wanted: $2" "got:    $3"; fi
}

has() {
    if printf '%s\n' "$3" | grep -Eq -- "$2"; then pass "$1"; else fail "$1" "wanted: $2" "got:    $3"; fi
}

# Runs a command until it succeeds. eventually SECONDS command …
eventually() {
    local end=$((SECONDS + $1 * slower))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# A command with a deadline of its own, so that a hang is a failed test.
within() {
    local limit=$(($1 * slower))
    shift
    timeout -k 2 "$limit" "$@"
}

# Unmounts a small disk of the test's. A worker that frees blocks of it ends with its work, a moment
# after the daemon.
let_go() {
    ok "the small disk is let go of" eventually 20 umount "$1"
}

daemon_start() {
    # shellcheck disable=SC2086
    "$huskd" --root "$root" --socket "$sock" --templates=off ${HUSK_TEST_SETTINGS:-} "$@" >>"$tmp/huskd.log" 2>&1 </dev/null &
    huskd_pid=$!
    eventually 60 daemon_answers || {
        diag "huskd does not answer" "$(tail -n 20 "$tmp/huskd.log")"
        exit 1
    }
}

daemon_answers() {
    curl -fsS --max-time 2 --unix-socket "$sock" http://husk/_ping
}

# daemon_end [SIGNAL]
daemon_end() {
    [ -n "$huskd_pid" ] || return 0
    kill -s "${1:-TERM}" "$huskd_pid" 2>/dev/null
    wait "$huskd_pid" 2>/dev/null
    huskd_pid=
}

# The processes that belong to this test's daemon, whoever their parent is now.
our_processes() {
    {
        find /proc/[0-9]*/cwd -maxdepth 0 -lname "$tmp/*" 2>/dev/null
        grep -alF -f <(echo "$tmp/") /proc/[0-9]*/cmdline 2>/dev/null # not in its own words
    } | cut -d/ -f3 | grep -vx "$$" | sort -u
}

no_processes() {
    [ -z "$(our_processes)" ]
}

finish() {
    local pods p
    trap - EXIT INT TERM
    if [ -n "$huskd_pid" ] && kill -0 "$huskd_pid" 2>/dev/null; then
        pods=$(within 20 "$husk" list -q pod)
        # shellcheck disable=SC2086
        [ -z "$pods" ] || within 60 "$husk" rm -f $pods >/dev/null 2>&1
        for p in $(within 20 "$husk" list -q vm); do within 20 "$husk" kill "$p" >/dev/null 2>&1; done
        daemon_end
    fi
    if eventually 30 no_processes; then
        pass "no process of the daemon is left"
    else
        fail "no process of the daemon is left" "$(ps -o pid,ppid,args -p "$(our_processes | paste -sd, -)")"
        for p in $(our_processes); do kill -9 "$p" 2>/dev/null; done
    fi
    if grep -qF "$tmp" /proc/self/mounts; then
        fail "no mount is left" "$(grep -F "$tmp" /proc/self/mounts)"
    fi
    echo "1..$tests"
    if [ "$failures" != 0 ]; then diag "the daemon's log ends:" "$(tail -n 30 "$tmp/huskd.log" 2>/dev/null)"; fi
    [ -n "${HUSK_KEEP_TMP:-}" ] || rm -rf "$tmp"
    [ "$failures" = 0 ]
    exit "$?" # without a number it would be the status from before the trap
}
trap finish EXIT
trap 'exit 130' INT TERM
