# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Sourced by scripts/power8-vm: the guest's initramfs, an uncompressed cpio archive ("newc"). Its
# headers are text, so that neither root nor cpio is needed to write one.
#
#   image >FILE      from kernel's $modules, $busybox, the programs in $bin, and COMMAND in $command

cpio_inode=0

cpio_entry() { # NAME MODE SIZE [MAJOR MINOR]
    local LC_ALL=C
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
        $((++cpio_inode)) "$2" 0 0 1 0 "$3" 0 0 "${4:-0}" "${5:-0}" $((${#1} + 1)) 0 "$1"
    cpio_pad $((110 + ${#1} + 1))
}

cpio_pad() { # LENGTH
    head -c $((-$1 & 3)) /dev/zero
}

cpio_dir() {
    local dir
    for dir; do
        cpio_entry "$dir" $((0040755)) 0
    done
}

cpio_file() { # NAME MODE FILE
    local size
    size=$(stat -Lc %s "$3")
    cpio_entry "$1" $((0100000 | $2)) "$size"
    cat "$3"
    cpio_pad "$size"
}

cpio_text() { # NAME MODE TEXT
    local LC_ALL=C
    cpio_entry "$1" $((0100000 | $2)) ${#3}
    printf %s "$3"
    cpio_pad ${#3}
}

plain_module() { # NAME: the module, unpacked
    local file
    file=$(find "$modules" -name "$1.ko*" -print -quit)
    case $file in
    *.xz) xz -dc "$file" ;;
    *.zst) zstd -dcq "$file" ;;
    *.gz) gzip -dc "$file" ;;
    *.ko) cat "$file" ;;
    *) die 4 "no module $1 in $modules" ;;
    esac
}

# Single quotes keep every byte as it is, in any shell.
quoted() {
    local word
    for word; do
        printf " '%s'" "${word//\'/\'\\\'\'}"
    done
}

image() {
    local module file
    cpio_dir bin dev etc lib lib/modules out proc root run sys tmp usr usr/bin usr/sbin sbin
    # The kernel opens it before init can mount anything.
    cpio_entry dev/console $((0020600)) 0 5 1
    cpio_file bin/busybox $((0755)) "$busybox"
    cpio_file init $((0755)) "$here/power8/init"
    cpio_file usr/bin/suite $((0755)) "$here/power8/suite"
    cpio_text command $((0644)) "exec$(quoted "${command[@]}")"$'\n'
    cpio_text mark $((0644)) "$mark"$'\n'
    [[ $icount != 0 ]] || cpio_text counting $((0644)) ''
    [[ -z $out ]] || cpio_text send-out $((0644)) ''
    for module in vfio vfio_iommu_spapr_tce vfio-pci-core vfio-pci; do
        plain_module "$module" >"$run/module"
        cpio_file "lib/modules/$module.ko" $((0644)) "$run/module"
    done
    for file in "${programs[@]}"; do
        cpio_file "usr/bin/$(basename "$file")" $((0755)) "$file"
    done
    cpio_entry 'TRAILER!!!' 0 0
}
