# Sourced by benches that compare the CPU time of Cowherd with that of another server. Each server is
# pinned to core 0 with one thread; the benches pin the load generator to core 1 and let the servers
# take turns.
#
# COWHERD_BIN selects another binary of Cowherd, COWHERD_ARGS further arguments, PEER another
# redis-server.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
peer=${PEER:-redis-server}
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

# start_servers ARGUMENT...: starts Cowherd with these arguments on port 7601, the other server on
# 7602; sets their process ids, `cowherd` and `other`
start_servers() {
    mkdir "$dir/cowherd" "$dir/peer"
    # shellcheck disable=SC2086
    taskset -c 0 "${COWHERD_BIN:-target/release/cowherd}" --port 7601 --metrics-port 0 --threads 1 --save '' \
        --dir "$dir/cowherd" "$@" ${COWHERD_ARGS:-} >"$dir/cowherd.log" 2>&1 &
    cowherd=$!
    taskset -c 0 "$peer" --port 7602 --save '' --appendonly no --dir "$dir/peer" >"$dir/peer.log" 2>&1 &
    other=$!
    local port
    for port in 7601 7602; do
        until [ "$(redis-cli -p $port ping 2>/dev/null)" = PONG ]; do sleep 0.1; done
    done
}

# ticks PID: CPU time of a process, user and system, in ticks of 10 ms
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

# median_and_range: of the numbers in the input
median_and_range() { sort -n | awk '{a[NR] = $1} END {printf "%.3f [%.3f..%.3f]", a[int((NR + 1) / 2)], a[1], a[NR]}'; }
