#!/bin/busybox sh
# First process of the guest: runs the tests of 1 GiB pages, prints the result, powers off.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb mount -t tmpfs tmpfs /tmp
$bb ip link set lo up
export PATH=/programs TMPDIR=/tmp COWHERD_BIN=/programs/cowherd COWHERD_SKIPPED=/tmp/skipped
export RUST_LIB_BACKTRACE=0
result="all tests passed"
for program in /programs/test-*; do
    $program 1_gib --test-threads 1 || result="a test failed"
    # A program without such a test, or with a new name for it, would pass unnoticed.
    $program 1_gib --list | $bb grep -q ': test$' || result="$program has no test of 1 GiB pages"
done
if [ -s /tmp/skipped ]; then
    $bb cat /tmp/skipped
    result="a test was left out"
fi
$bb sync
echo "guest: $result"
$bb poweroff -f
