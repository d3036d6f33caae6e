#!/usr/bin/env bash
# Cost of telemetry or of the write barrier while no checkpoint runs: CPU time per request with the feature
# and with it compiled out, in turns; and, if valgrind is installed, instructions per request outside the
# kernel, which do not vary between runs.
#
#   server/benches/feature_cost.sh telemetry|barrier [ROUNDS]
#
# Needs redis-benchmark and two cores: the server runs on core 0, the load on core 1. With ROUNDS 0 the script
# only counts instructions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case ${1:-} in
    telemetry) OTHERS=barrier ;;
    barrier) OTHERS=telemetry ;;
    *)
        echo "usage: $0 telemetry|barrier [ROUNDS]" >&2
        exit 2
        ;;
esac
ROUNDS=${2:-9}
REQUESTS=${REQUESTS:-2000000}
PORT=${PORT:-16399}
WORK=$(mktemp -d)
SERVER=
trap '[ -z "$SERVER" ] || kill -9 "$SERVER" 2>/dev/null; rm -rf "$WORK"' EXIT

cargo build --release -q -p cowherd && cp target/release/cowherd "$WORK/with"
# In a separate target folder, so that target/release keeps the server with all features.
cargo build --release -q -p cowherd --no-default-features --features $OTHERS --target-dir target/without
cp target/without/release/cowherd "$WORK/without"

# CPU time of a process in ticks of 10 ms.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

# Nanoseconds of CPU time per request of a kind, for one of the two builds.
measure() {
    local build=$1 kind=$2 before after
    taskset -c 0 "$WORK/$build" --port "$PORT" --metrics-port 0 --threads 1 --save "" \
        --dir "$WORK" --maxmemory 256mb --arena-pages small --loglevel warning >"$WORK/log" 2>&1 &
    SERVER=$!
    until redis-cli -p "$PORT" ping >/dev/null 2>&1; do sleep 0.02; done
    # Creates keys and buffers before the measurement.
    taskset -c 1 redis-benchmark -p "$PORT" -q -t set -n 200000 -r 100000 -P 16 -d 64 >/dev/null
    before=$(ticks $SERVER)
    taskset -c 1 redis-benchmark -p "$PORT" -q -t "$kind" -n "$REQUESTS" -r 100000 -P 16 -d 64 \
        >/dev/null
    after=$(ticks $SERVER)
    kill -9 $SERVER
    wait $SERVER 2>/dev/null || true
    SERVER=
    echo $(((after - before) * 10000000 / REQUESTS))
}

# Instructions per request of a kind, for one of the two builds.
instructions() {
    local build=$1 kind=$2 requests=40000
    valgrind -q --tool=callgrind --callgrind-out-file="$WORK/callgrind" "$WORK/$build" --port "$PORT" \
        --metrics-port 0 --threads 1 --save "" --dir "$WORK" --maxmemory 64mb --arena-pages small \
        --loglevel warning >"$WORK/log" 2>&1 &
    SERVER=$!
    until redis-cli -p "$PORT" ping >/dev/null 2>&1; do sleep 0.1; done
    redis-benchmark -p "$PORT" -q -t set -n 20000 -r 10000 -P 16 -d 64 >/dev/null
    callgrind_control -z $SERVER >/dev/null 2>&1
    redis-benchmark -p "$PORT" -q -t "$kind" -n $requests -r 10000 -P 16 -d 64 >/dev/null
    callgrind_control -d $SERVER >/dev/null 2>&1
    kill -9 $SERVER
    wait $SERVER 2>/dev/null || true
    SERVER=
    awk -v n=$requests '/^summary:/ { printf "%d\n", $2 / n }' "$WORK"/callgrind.1
    rm -f "$WORK"/callgrind*
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
spread() { sort -n | awk 'NR == 1 { low = $1 } END { print low "-" $1 }'; }

if command -v valgrind >/dev/null; then
    for kind in set get; do
        with=$(instructions with $kind) without=$(instructions without $kind)
        printf '%s -P 16: %s instructions with, %s without, ratio %s\n' $kind "$with" "$without" \
            "$(awk "BEGIN { printf \"%.4f\", $with / $without }")"
    done
fi

for kind in set get; do
    ((ROUNDS)) || break
    : >"$WORK/with.$kind" && : >"$WORK/without.$kind" && : >"$WORK/ratio.$kind"
    for ((round = 0; round < ROUNDS; round++)); do
        # The builds alternate in coming first.
        order="with without"
        ((round % 2)) && order="without with"
        for build in $order; do measure $build $kind >>"$WORK/$build.$kind"; done
        paste <(tail -1 "$WORK/with.$kind") <(tail -1 "$WORK/without.$kind") |
            awk '{ printf "%.4f\n", $1 / $2 }' >>"$WORK/ratio.$kind"
    done
    printf '%s -P 16: with %s ns (%s), without %s ns (%s), ratio of a round: median %s (%s)\n' \
        $kind "$(median <"$WORK/with.$kind")" "$(spread <"$WORK/with.$kind")" \
        "$(median <"$WORK/without.$kind")" "$(spread <"$WORK/without.$kind")" \
        "$(median <"$WORK/ratio.$kind")" "$(spread <"$WORK/ratio.$kind")"
done
