# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Sourced by scripts/power8-vm: runs the guest and makes out of its console the command's output, its
# files and its status.
#
#   boot             never returns
#   stop_vm          ends QEMU if it runs

# Six IOMMU groups, one per PCI bus: four behind a switch on the first PHB, one on the second, one
# with two devices behind a bridge on the third. (-nodefaults would remove the PHBs.)
devices() {
    local n edu=edu,dma_mask=0xffffffffffffffff
    printf '%s\n' -device x3130-upstream,id=up0,bus=pcie.0,addr=0
    for n in 0 1 2 3; do
        printf '%s\n' -device "xio3130-downstream,id=dn$n,bus=up0,chassis=10,slot=$n,addr=$n" \
            -device "$edu,bus=dn$n,addr=0"
    done
    printf '%s\n' -device "$edu,bus=pcie.1,addr=0" \
        -device pcie-pci-bridge,id=br2,bus=pcie.2,addr=0 \
        -device "$edu,bus=br2,addr=1" -device "$edu,bus=br2,addr=2"
}

# A lockup or an oops ends the guest rather than the patience of who waits for it.
# tce.icount is for tce-bench: it tells whether the guest's nanoseconds are instructions.
kernel_line="console=hvc0 loglevel=4 panic=1 oops=panic softlockup_panic=1 hugepagesz=16M hugepages=8"

start_vm() {
    local device
    mapfile -t device < <(devices)
    # If this script dies of whatever, timeout is sent TERM and passes it on to QEMU.
    setpriv --pdeathsig TERM timeout -k 3 "$timeout" \
        "${qemu[@]}" -M powernv8 -m 3G -smp 1 -display none -monitor none -serial stdio -no-reboot \
        -icount "shift=$icount,sleep=off" \
        -kernel "$kernel" -initrd "$run/initramfs" -append "$kernel_line tce.icount=$icount" \
        -d guest_errors -D "$console.qemu" "${device[@]}" \
        </dev/null >"$console" 2>"$run/qemu.messages" &
    vm=$!
}

stop_vm() {
    [[ -n $vm ]] || return 0
    kill "$vm" 2>/dev/null || true
    wait "$vm" 2>/dev/null || true
    vm=
}

# The command's output as it comes, without what the firmware remarks meanwhile. A last line without
# its newline gets one.
follow() {
    tail -s 0.1 -c +1 -f --pid="$vm" "$console" | LC_ALL=C sed -Eun "
        /^$mark BEGIN\$/,/$mark END\$/ {
            /^$mark BEGIN\$/d
            /^\[ *[0-9]+\.[0-9]{9},[0-9]\] /d
            /$mark END\$/ { s/$mark END\$//; /^\$/d; }
            p
        }"
}

progress() {
    local shown stage=0 since=$SECONDS
    printf -v shown '%q ' "${command[@]}"
    local stages=("the firmware starts Linux" "the guest is up, running: ${shown:0:100}"
        "the command has ended" "reading /out")
    local signs=("INIT: Starting kernel" "^$mark BEGIN" "^$mark KERNEL" "^$mark OUT")
    while sleep 0.3; do
        while [[ $stage -lt 4 ]] && grep -aqs "${signs[stage]}" "$console"; do
            note "${stages[stage]}"
            stage=$((stage + 1))
            since=$SECONDS
        done
        if ((SECONDS - since >= 60)); then
            note "still at it"
            since=$SECONDS
        fi
    done
}

section() { # NAME: the lines of the console between two marks
    LC_ALL=C sed -n "/^$mark $1\$/,/^$mark $1-END\$/ { /^$mark $1/!p; }" "$console"
}

receive() {
    [[ -n $out ]] && grep -aqs "^$mark OUT\$" "$console" || return 0
    if ! grep -aqs "^$mark OUT-END\$" "$console" ||
        ! section OUT | base64 -d | tar -C "$out" -xz --no-same-owner --touch --no-overwrite-dir -f -; then
        die 125 "the files of /out did not come through whole"
    fi
    # In the console's log they are of no use to anybody.
    LC_ALL=C sed -i "/^$mark OUT\$/,/^$mark OUT-END\$/ { /^$mark/!d; }" "$console"
    note "/out came to $out"
}

# What the kernel says stands behind a time stamp, unlike what the command says.
kernel_says() { # PATTERN
    LC_ALL=C sed -En "/^\[ *[0-9]+\.[0-9]{6}\].*($1)/ { s/\r\$//; p; }" "$console" | sort -u
}

finish_with() { # STATUS TEXT
    note "$2"
    exit "$1"
}

boot() {
    local status code follower watcher panic warnings
    console=${log:-$run/console}
    mkdir -p "$(dirname "$console")" && : >"$console" || die 2 "cannot write $console"
    keep_log=$([[ -n $log ]] || echo 1)
    note "booting (console: ${log:-$cache/last.log})"
    start_vm
    follow &
    follower=$!
    progress &
    watcher=$!
    code=0
    wait "$vm" || code=$?
    vm=
    wait "$follower" || true
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true

    panic=$(kernel_says 'Kernel panic')
    warnings=$(kernel_says 'WARNING:|BUG:|Oops|soft lockup|detected stalls|blocked for more than')
    status=$(grep -ao "$mark STATUS [0-9]*" "$console" | tail -n 1) || true
    status=${status##* }
    if [[ -n $warnings ]]; then
        note "the guest's kernel warned:"
        head -n 10 <<<"$warnings" | sed 's/^/    /' >&2
    fi
    [[ -z $panic ]] || finish_with 123 "the guest's kernel died: ${panic%%$'\n'*}"
    if [[ -z $status ]]; then
        case $code in
        124 | 137) finish_with 124 "stopped after $timeout seconds (--timeout)" ;;
        esac
        {
            echo "the end of the console:"
            tail -n 20 "$console"
            cat "$run/qemu.messages"
        } >&2
        finish_with 125 "the guest ended without a status (QEMU's: $code)"
    fi
    receive
    if [[ -n $fail_on_warn && -n $warnings && $status == 0 ]]; then
        finish_with 123 "the command succeeded, but the kernel warned (--fail-on-warn)"
    fi
    finish_with "$status" "exit status $status"
}
