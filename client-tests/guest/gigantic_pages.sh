#!/usr/bin/env bash
# Runs the tests of 1 GiB pages in a virtual machine that reserves such pages at boot.
#
#   gigantic_pages.sh FOLDER SERVER TEST_PROGRAM...
#
# A kernel that has run for hours rarely finds a GiB of contiguous memory. The guest has Debian's or
# Ubuntu's kernel, 6 GiB of memory, an initramfs of busybox, SERVER and the test programs, and no
# devices. The processor is emulated, so neither KVM nor 1 GiB pages on the host are needed.
# FOLDER keeps the kernel for the next run. Needs apt-get, qemu-system-x86_64 and busybox.
set -euo pipefail
FOLDER=$1 SERVER=$2
shift 2
GUEST=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# An emulated machine is slow: a few rounds show what differs from 2 MiB pages.
ROUNDS=5
# The kernel passes arguments that it does not know to the first process, as its environment.
BOOT_ARGUMENTS="console=ttyS0 quiet panic=-1 hugepagesz=1G hugepages=2 COWHERD_TEST_ROUNDS=$ROUNDS"

# Prints the name of the kernel's package: the newest that the distribution's metapackage needs.
kernel_package() {
    local metapackage
    for metapackage in linux-image-cloud-amd64 linux-image-virtual; do
        apt-cache depends --important "$metapackage" 2>/dev/null |
            sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p'
    done | head -1
}

# Unpacks the kernel in FOLDER. It is not installed.
fetch_kernel() {
    compgen -G "$FOLDER/kernel/boot/vmlinuz-*" >/dev/null && return
    rm -rf "$FOLDER"
    mkdir -p "$FOLDER/download"
    (cd "$FOLDER/download" && apt-get -qq download "$(kernel_package)")
    dpkg-deb -x "$FOLDER"/download/linux-image-*.deb "$FOLDER/kernel"
    rm -r "$FOLDER/download"
}

# Copies a program and the libraries that it loads.
add_program() {
    install -D "$1" "$TREE/programs/$2"
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$TREE$library"
    done
}

TREE=$(mktemp -d)
trap 'rm -rf "$TREE"' EXIT
fetch_kernel
mkdir -p "$TREE"/{bin,dev,proc,sys,tmp}
cp "$(command -v busybox)" "$TREE/bin/"
install "$GUEST/init.sh" "$TREE/init"
add_program "$SERVER" cowherd
for program in "$@"; do
    add_program "$program" "test-$(basename "$program")"
done
(cd "$TREE" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$FOLDER/initramfs.gz"

# The console is all that the guest reports by.
LOG="$FOLDER/console.log"
timeout 1200 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 6G \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot \
    -kernel "$(ls "$FOLDER"/kernel/boot/vmlinuz-* | tail -1)" -initrd "$FOLDER/initramfs.gz" \
    -append "$BOOT_ARGUMENTS" </dev/null | tr -d '\r' | tee "$LOG"
grep -qx "guest: all tests passed" "$LOG"
