# Sourced by each experiment's `run`. run-all sets: KILN, KILN_TEST_REGISTRY, KILN_TEST_INDEX, KILN_TEST_INDEX_LOG,
# SCRATCH (an empty directory that the building user owns) and, to build as somebody else, KILN_USER.
#
# An experiment starts with an empty store. Each `build` leaves its progress in $LOG and its seconds in $TOOK.
set -euo pipefail

NAME=$(basename "$(dirname "$(realpath "$0")")")
CONTEXT=$SCRATCH/context
OUT=$SCRATCH/out
export KILN_ROOT=$SCRATCH/store
# The package index and what else steps ask is on this machine's loopback.
export KILN_NETWORK=host
# pip keeps downloads only from where it trusts the connection: https, or a host it is told to trust.
PIP_INDEX=(--build-arg "PIP_INDEX_URL=$KILN_TEST_INDEX/simple/" --build-arg PIP_TRUSTED_HOST=127.0.0.1)
BUILDS=0
TOOK=0
LOG=/dev/null

cp -a "$(dirname "$(realpath "$0")")" "$CONTEXT"
rm -f "$CONTEXT/run" "$CONTEXT/README.md"
mkdir -p "$OUT"

# Hands what the experiment wrote to the user who builds.
own() { if [ -n "${KILN_USER:-}" ]; then chown -R "$(id -u "$KILN_USER"):$(id -g "$KILN_USER")" "$CONTEXT" "$OUT"; fi; }

# kiln, as KILN_USER if that is set.
kiln() {
    if [ -n "${KILN_USER:-}" ]; then
        setpriv --reuid="$KILN_USER" --regid="$(id -g "$KILN_USER")" --clear-groups --inh-caps=-all \
            env HOME="$SCRATCH" USER="$KILN_USER" XDG_RUNTIME_DIR= KILN_ROOT="$KILN_ROOT" \
            KILN_NETWORK=host "$KILN" "$@"
    else
        HOME=$SCRATCH "$KILN" "$@"
    fi
}

# What every build here is told: where the bases are, which package index to use, how to get out.
build_flags() {
    local name
    printf '%s\n' --progress=plain --registry-mirror "docker.io=http://$KILN_TEST_REGISTRY" \
        --registry-mirror "ghcr.io=http://$KILN_TEST_REGISTRY"
    for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do
        [ -z "${!name:-}" ] || printf '%s\n' --build-arg "$name=${!name}" --build-arg no_proxy=127.0.0.1,localhost
    done
}

# build [FLAG...] : builds $CONTEXT; a failure ends the experiment and shows the log.
build() {
    try_build "$@" || fail "kiln build $* ended with status $?"
    sed -n 's/^/    /p' "$LOG" | tail -n 3
    echo "  build $BUILDS ($*): ${TOOK}s"
}

# The same, giving back kiln's status.
try_build() {
    local begun ended status=0 flags
    own
    BUILDS=$((BUILDS + 1))
    LOG=$SCRATCH/build-$BUILDS.log
    mapfile -t flags < <(build_flags)
    begun=$EPOCHREALTIME
    kiln build "${flags[@]}" "$@" "$CONTEXT" >"$LOG" 2>&1 || status=$?
    ended=$EPOCHREALTIME
    TOOK=$(seconds "$begun" "$ended")
    return $status
}

# What a command says that runs in an image. Its status is not looked at: an answer is.
in_image() {
    local image=$1
    shift
    kiln run --rm "$image" "$@" 2>&1 || true
}

seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", b - a }'; }

fail() {
    echo "FAILED: $*"
    if [ "$LOG" != /dev/null ]; then
        echo "--- the last build's log ---"
        tail -n 60 "$LOG"
    fi
    exit 1
} >&2

skip() {
    echo "SKIPPED: $*"
    exit 77
}

assert_eq() { [ "$1" = "$2" ] || fail "$3: expected '$2', got '$1'"; }
assert_contains() { grep -qF -- "$2" "$1" || fail "'$2' is not in $(basename "$1")${3:+: $3}"; }
assert_not_contains() { ! grep -qF -- "$2" "$1" || fail "'$2' is in $(basename "$1")${3:+: $3}"; }
# pip took PACKAGE from its cache: the name in the log is a file's, or a whole address for an index of one's own.
assert_pip_cached() { grep -qE "Using cached (http.*/)?$1-" "$LOG" || fail "pip did not take $1 from its cache"; }
assert_has() { case $1 in *"$2"*) ;; *) fail "$3: '$2' is not in: $1" ;; esac }
assert_has_not() { case $1 in *"$2"*) fail "$3: '$2' is in: $1" ;; esac }
assert_less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }' || fail "$3: $1 is not less than $2"; }

# The progress number of the step whose title holds TEXT.
step_number() { sed -n 's/^#\([0-9]*\) \[.*/\1 &/p' "$LOG" | grep -F -- "$1" | head -n 1 | cut -d' ' -f1; }
assert_cached() {
    local step
    step=$(step_number "$1")
    [ -n "$step" ] || fail "no step says '$1'"
    grep -q "^#$step CACHED" "$LOG" || fail "the step '$1' was not cached"
}
assert_ran() {
    local step
    step=$(step_number "$1")
    [ -n "$step" ] || fail "no step says '$1'"
    grep -q "^#$step DONE" "$LOG" && ! grep -q "^#$step CACHED" "$LOG" || fail "the step '$1' did not run"
}

# What the index was asked since index_mark.
index_mark() { INDEX_MARK=$(wc -l <"$KILN_TEST_INDEX_LOG"); }
index_since() { tail -n +$((INDEX_MARK + 1)) "$KILN_TEST_INDEX_LOG"; }
# Files downloaded since then, in the order they were asked for, one per line.
downloads() { index_since | sed -n 's|.*"path": "/files/\([^"]*\)", "status": 20[06].*|\1|p' | grep -v '\.metadata$' || true; }
downloads_count() { downloads | grep -c . || true; }

# Bytes of the layers of an OCI layout directory, the base's left out if the number of its layers is given.
layer_bytes() {
    python3 - "$1" "${2:-0}" <<'PY'
import json, sys
layout, skip = sys.argv[1], int(sys.argv[2])
read = lambda d: json.load(open(f"{layout}/blobs/{d.replace(':', '/')}"))
manifest = read(json.load(open(f"{layout}/index.json"))["manifests"][0]["digest"])
print(sum(layer["size"] for layer in manifest["layers"][skip:]))
PY
}
