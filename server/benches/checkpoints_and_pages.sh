#!/usr/bin/env bash
# Produces the tables of docs/benchmarks.md about checkpoints and pages, as root on an idle machine:
#   experiment  cost of copy-on-write on each kind of page
#   snapshot    latency during BGSAVE at 20,000 and 60,000 SET/s, beside peers
#   fork        fork() from 1 to 8 GiB on each kind of page
#
#   cargo build --release && server/benches/checkpoints_and_pages.sh [--quick] [experiment|snapshot|fork ...]
#
# --quick takes two minutes and only checks that everything runs. Results are written to
# target/tables, one folder per command: the report (pages.html or snapshot.html), the tables as
# Markdown (.md), all figures (.json, .csv), the terminal output and the command itself. COWHERD_BIN
# selects another binary, ISOLATION other isolations than the default (separated by commas).
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
bin=${COWHERD_BIN:-target/release/cowherd}
out=${CARGO_TARGET_DIR:-target}/tables
quick=no
if [ "${1:-}" = --quick ]; then
    quick=yes
    out=$out-quick
    shift
fi
[ $# -gt 0 ] || set -- experiment snapshot fork
if [ ! -x "$bin" ]; then
    echo "there is no $bin; cargo build --release" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "resizing hugetlb pools requires root" >&2
    exit 1
fi
failed=()

# bench NAME ARGUMENTS...: runs a command with its results in the folder NAME
bench() {
    local name=$1 begun=$SECONDS
    shift
    rm -rf "${out:?}/$name"
    mkdir -p "$out/$name"
    echo "cowherd bench $*" | tee "$out/$name/command"
    if "$bin" bench "$@" --report "$out/$name" >"$out/$name/terminal.txt"; then
        echo "   $((SECONDS - begun)) s, $out/$name"
    else
        failed+=("$name")
    fi
}

experiment() {
    local size=(--runs 10 --fault-runs 1)
    [ $quick = no ] || size=(--runs 1 --fault-runs 1 --sizes 1,8)
    bench experiment pages --set-pool --set-mthp "${size[@]}"
}

snapshot() {
    local rate peers=() size=(--keys 1500000 --value-size 512 --rounds 3 --duration 4 --warm-up 1)
    [ $quick = no ] || size=(--keys 30000 --value-size 512 --rounds 1 --duration 0.5 --warm-up 0.2)
    [ -z "${ISOLATION:-}" ] || size+=(--isolation "$ISOLATION")
    local list
    if ! list=$(server/benches/peers.sh); then
        failed+=(peers)
        return
    fi
    for peer in $list; do
        peers+=(--server "$peer")
    done
    for rate in 20000 60000; do
        bench "snapshot-$rate" snapshot --spawn --no-peers "${peers[@]}" --pages small,thp,huge-2mb \
            --set-pool --rate "$rate" "${size[@]}"
    done
}

# Kinds of different pools are measured in separate commands, so that the machine need not hold all
# pools at once.
fork() {
    local kinds size=(--runs 5 --sizes 512,1024,2048,4096)
    [ $quick = no ] || size=(--runs 1 --sizes 8,512)
    for kinds in small,thp huge-2mb,shared-2mb huge-1gb; do
        bench "fork-$kinds" pages --patterns none --writers parent --kinds "$kinds" --set-pool \
            "${size[@]}"
    done
}

begun=$SECONDS
for part in "$@"; do
    case $part in
        experiment | snapshot | fork) "$part" ;;
        *)
            echo "unknown part '$part'; use experiment, snapshot or fork" >&2
            exit 2
            ;;
    esac
done
echo "all in $((SECONDS - begun)) s"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
