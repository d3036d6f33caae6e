#!/usr/bin/env bash
# CPU time of the server per request in each test of redis-benchmark, and in tests of HyperLogLogs and positions, beside
# redis-server, without pipelining and with 16 requests per write. Each server is pinned to core 0 with one thread, the load to core 1; the servers
# take turns within each round.
#
#   cargo build --release && server/benches/redis_benchmark.sh [ROUNDS]
#
# Prints, for each test, the medians in microseconds (user + system) and the ratio of the medians. TESTS selects
# tests (set get ...), DEPTHS depths, PEER another redis-server, COWHERD_BIN another binary.
set -euo pipefail
source "$(dirname "$0")/side_by_side.sh"
rounds=${1:-5}
start_servers --maxmemory 2gb
echo "$("$peer" --version | cut -d' ' -f3) beside cowherd, kernel $(uname -r), $rounds rounds"

key=key:__rand_int__ # redis-benchmark writes twelve digits
mset=()
for _ in 1 2 3 4 5 6 7 8 9 10; do mset+=("$key" xxx); done

# request TEST: sets `line` to the command of a test
request() {
    case $1 in
    set) line=(SET "$key" xxx) ;;
    get) line=(GET "$key") ;;
    incr) line=(INCR counter:__rand_int__) ;;
    lpush) line=(LPUSH mylist xxx) ;;
    rpush) line=(RPUSH mylist xxx) ;;
    lpop) line=(LPOP mylist) ;;
    rpop) line=(RPOP mylist) ;;
    sadd) line=(SADD myset element:__rand_int__) ;;
    hset) line=(HSET myhash element:__rand_int__ xxx) ;;
    spop) line=(SPOP myset) ;;
    zadd) line=(ZADD myzset __rand_int__ element:__rand_int__) ;;
    zpopmin) line=(ZPOPMIN myzset) ;;
    lrange_*) line=(LRANGE mylist 0 $((${1#lrange_} - 1))) ;;
    mset) line=(MSET "${mset[@]}") ;;
    xadd) line=(XADD mystream '*' myfield xxx) ;;
    pfadd) line=(PFADD mysketch element:__rand_int__) ;;
    pfcount) line=(PFCOUNT mysketch) ;;
    # Random digits with an exponent: longitudes from 0 to 100, latitudes from 0 to 10.
    geoadd) line=(GEOADD myplaces __rand_int__e-3 __rand_int__e-4 place:__rand_int__) ;;
    geosearch) line=(GEOSEARCH myplaces FROMLONLAT __rand_int__e-3 __rand_int__e-4 BYRADIUS 50 km ASC COUNT 10) ;;
    # The two tests that redis-benchmark cannot send as a command line.
    ping_*) line=(-t "$1") ;;
    esac
}

# count TEST: number of requests without pipelining; with pipelining, four times as many
count() {
    case $1 in
    lrange_100) echo 40000 ;;
    lrange_*) echo 15000 ;;
    mset | geosearch) echo 40000 ;;
    *) echo 100000 ;;
    esac
}

# CPU time of all threads of a process in nanoseconds.
nanos() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { print sum }'; }

# measure PORT PID DEPTH TEST: microseconds of server CPU time per request
measure() {
    local port=$1 pid=$2 depth=$3 test=$4 n line start
    n=$(count "$test")
    [ "$depth" = 1 ] || n=$((n * 4))
    request "$test"
    start=$(nanos "$pid")
    if ! taskset -c 1 redis-benchmark -p "$port" -c 50 -n "$n" -r 100000 -P "$depth" -q "${line[@]}" \
        >"$dir/out" 2>&1 || grep -qi 'error from server' "$dir/out"; then
        cat "$dir/out" >&2
        exit 1
    fi
    echo "$start $(nanos "$pid") $n" | awk '{ printf "%.3f\n", ($2 - $1) / 1000 / $3 }'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# Tests that read or remove follow those that create.
tests=${TESTS:-ping_inline ping_mbulk set get incr lpush rpush lrange_100 lrange_300 lrange_500 lrange_600 lpop rpop
    sadd spop hset zadd zpopmin mset xadd pfadd pfcount geoadd geosearch}
depths=${DEPTHS:-1 16}
for ((round = 1; round <= rounds; round++)); do
    for port in 7601 7602; do
        redis-cli -p $port flushall >/dev/null
        # Creates the list for tests that read or pop, even if no selected test creates it.
        taskset -c 1 redis-benchmark -p $port -n 2000 -q RPUSH mylist xxx >/dev/null
    done
    for depth in $depths; do
        for test in $tests; do
            measure 7601 $cowherd $depth "$test" >>"$dir/c.$test.$depth"
            measure 7602 $other $depth "$test" >>"$dir/o.$test.$depth"
        done
    done
done
printf '%-12s %5s %12s %12s %7s\n' test depth cowherd "${peer##*/}" ratio
for depth in $depths; do
    for test in $tests; do
        c=$(median <"$dir/c.$test.$depth") o=$(median <"$dir/o.$test.$depth")
        printf '%-12s %5s %12s %12s %7s\n' "$test" "$depth" "$c" "$o" \
            "$(echo "$c $o" | awk '{ printf "%.2f", $1 / $2 }')"
    done
done
