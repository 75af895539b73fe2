# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Sourced by .ci/run and scripts/nightly, which set `set -euo pipefail` first.
#
#   step NAME COMMAND [ARG...]   runs the command as a timed step; a failure ends the script
#   skip NAME REASON             notes a step that cannot run here
#   attempt NAME PROGRAM [ARG...]  a step that is a program of its own; it is skipped if the program says by
#                                exit code 4 that a piece is neither here nor to be had
#   background NAME PROGRAM [ARG...]  starts a program beside the steps that come; it writes into a file
#   join NAME                    a step that waits for it and shows what it wrote; its time is its own, and exit
#                                code 4 skips it
#   steps_night DIRECTORY FILE   from here on a step that fails does not end the script, which fails at its end;
#                                what a step prints is kept in the directory, and the table with the last lines
#                                of each step goes to the file
#   steps_only PATTERN...        from here on only steps whose name one of the patterns matches, as file names are
#                                matched; one that matches no step makes the script fail
#   wanted NAME                  whether that is one of them
#   steps_budget FILE            lines of seconds and a step's name: the table says which steps took longer.
#                                The script fails for that only if JUDGE_TIMES is set, as on a machine that
#                                is quiet and known; but each step has to have a line, and each line a step
#   powerpc_ready NAME           true if this machine can build and run powerpc64le programs;
#                                installs what is missing as root, otherwise skips NAME
#   powerpc_test CPU             the engine's unit tests on an emulated CPU
#   powerpc_profile              the test of the profiler that --profile has there
#   host                         this machine's target
#   miri_toolchain               installs a nightly compiler with Miri
#   miri TARGET [FILTER...]      the engine's unit tests, or those of such names, interpreted
#   valgrind_ready NAME          true if this machine has valgrind; installs it as root, otherwise
#                                skips NAME
#
# The table of times is printed when the script ends, whichever way it ends.

step_names=()
step_times=()
step_results=()
step_current=
step_since=
script_since=$(date +%s%3N)

step_close() { # RESULT
    step_names+=("$step_current")
    step_times+=($(($(date +%s%3N) - step_since)))
    step_results+=("$1")
    step_current=
}

step_begin() { # NAME
    step_current=$1
    step_since=$(date +%s%3N)
    printf '\n==> %s\n' "$step_current"
}

steps_kept= steps_summary= steps_failed=

steps_night() { # DIRECTORY FILE
    steps_kept=$1 steps_summary=$2
    rm -rf "$steps_kept"
    mkdir -p "$steps_kept" "$(dirname "$steps_summary")"
}

# Where what the step prints is kept.
step_log() {
    printf '%s/%02d.log' "$steps_kept" ${#step_names[@]}
}

# Runs a step whose end is not the script's, and sets step_status. The command stands alone in a subshell: under
# `if`, `!`, `&&` or `||` bash would ignore `set -e` inside a function, and a failing line in it would go unnoticed.
step_run() {
    set +e
    (
        set -e
        "$@"
    ) 2>&1 | tee "$(step_log)"
    step_status=${PIPESTATUS[0]}
    set -e
}

steps_asked=()
declare -A steps_matched=()

steps_only() { # PATTERN...
    steps_asked=("$@")
}

wanted() { # NAME
    local pattern
    [[ ${#steps_asked[@]} -gt 0 ]] || return 0
    for pattern in "${steps_asked[@]}"; do
        # shellcheck disable=SC2053 # a pattern
        if [[ $1 == $pattern ]]; then
            steps_matched[$pattern]=1
            return 0
        fi
    done
    return 1
}

# The command stands alone on its line, for the same reason.
step() {
    wanted "$1" || return 0
    step_begin "$1"
    shift
    if [[ -n $steps_kept ]]; then
        step_run "$@"
        step_judge
    else
        "$@"
        step_close ok
    fi
}

# Of a step that came to an end by itself, with 0 or something else.
step_judge() {
    case $step_status in
    0) step_close ok ;;
    130 | 143) exit "$step_status" ;;
    *)
        [[ -n $steps_kept ]] || exit "$step_status"
        steps_failed=1
        step_close "FAILED (exit $step_status)"
        ;;
    esac
}

skip() {
    step_current=$1
    step_since=$(date +%s%3N)
    printf '\nSKIPPED %s: %s\n' "$1" "$2"
    step_close SKIPPED
}

attempt() {
    wanted "$1" || return 0
    step_begin "$1"
    shift
    step_status=0
    if [[ -n $steps_kept ]]; then
        step_run "$@"
    else
        # A program, not a function: `||` would switch `set -e` off in that.
        "$@" || step_status=$?
    fi
    if [[ $step_status -eq 4 ]]; then
        printf '\nSKIPPED %s: see above\n' "$step_current"
        step_close SKIPPED
    else
        step_judge
    fi
}

# What takes long on one core goes well beside what takes two.
declare -A background_pids=() background_since=()
background_logs=

background() {
    local name=$1
    shift
    [[ -n $background_logs ]] || background_logs=$(mktemp -d)
    printf '\n==> %s, in the background\n' "$name"
    background_since[$name]=$(date +%s%3N)
    # In a session of its own, so that all of it can be stopped.
    setsid bash -c '"$@"; status=$?; date +%s%3N >"$0.end"; exit $status' "$background_logs/$name" "$@" \
        >"$background_logs/$name" 2>&1 </dev/null &
    background_pids[$name]=$!
}

join() { # NAME
    local status=0
    step_current=$1
    step_since=${background_since[$1]}
    printf '\n==> %s\n' "$1"
    wait "${background_pids[$1]}" || status=$?
    unset "background_pids[$1]"
    cat "$background_logs/$1"
    case $status in
    0) step_close ok ;;
    4) step_close SKIPPED ;;
    *) exit "$status" ;;
    esac
    step_times[-1]=$(($(<"$background_logs/$1.end") - ${background_since[$1]}))
}

declare -A steps_seconds=()

steps_budget() { # FILE
    local seconds name
    while read -r seconds name; do
        [[ -z $seconds || $seconds == '#'* ]] || steps_seconds[$name]=$seconds
    done <"$1"
}

# One line: what the step of that name and time may take, and whether it did.
step_allowance() { # NAME MS
    local allowed=${steps_seconds[$1]-}
    if [[ ${#steps_seconds[@]} -eq 0 ]]; then
        return 0
    elif [[ -z $allowed ]]; then
        printf '  no line in the budget'
    elif [[ $2 -gt $((allowed * 1000)) ]]; then
        printf '  over its %d s' "$allowed"
    fi
}

# What the night was like, for a folder of such: no path of this machine is in it.
steps_summarise() {
    local i log commit
    commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
    [[ -z $(git status --porcelain --untracked-files=no 2>/dev/null) ]] || commit+=", with changes"
    printf 'date     %s\n' "$(date -u +%FT%TZ)"
    printf 'commit   %s\n' "$commit"
    [[ ${#steps_asked[@]} -eq 0 ]] || printf 'steps    only: %s\n' "${steps_asked[*]}"
    printf 'machine  %s, %s CPUs, %s\n\n' "$(uname -m)" "$(nproc)" \
        "$(sed -n 's/^\(model name\|cpu\)[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
    cat
    for i in "${!step_names[@]}"; do
        log=$(printf '%s/%02d.log' "$steps_kept" "$i")
        [[ -s $log ]] || continue
        printf '\n==> %s\n' "${step_names[i]}"
        grep -v '^[[:space:]]*$' "$log" | tail -n 8 | cut -c 1-200
    done | sed "s#${PWD}/##g; s#${HOME:-/root}/#~/#g"
}

steps_finish() {
    local status=$?
    trap - EXIT
    if [[ -n $steps_kept ]]; then
        steps_table "$status" >"$steps_kept/table" || status=$?
        cat "$steps_kept/table"
        steps_summarise <"$steps_kept/table" >"$steps_summary"
        echo "$steps_summary has this and the last lines of each step"
    else
        steps_table "$status" || status=$?
    fi
    exit "$status"
}

steps_table() { # STATUS; returns that of the script
    local status=$1 i ms name allowance skipped=
    for name in "${!background_pids[@]}"; do
        kill -- "-${background_pids[$name]}" 2>/dev/null ||
            kill "${background_pids[$name]}" 2>/dev/null || true
    done
    if [[ -n $step_current ]]; then
        step_close FAILED
    fi
    [[ -z $steps_failed || $status -ne 0 ]] || status=1
    printf '\n%-28s %9s  %s\n' step seconds result
    for i in "${!step_names[@]}"; do
        ms=${step_times[i]}
        allowance=
        if [[ ${step_results[i]} == SKIPPED ]]; then
            skipped=1
        else
            allowance=$(step_allowance "${step_names[i]}" "$ms")
        fi
        printf '%-28s %7d.%d  %s%s\n' "${step_names[i]}" $((ms / 1000)) $((ms % 1000 / 100)) \
            "${step_results[i]}" "$allowance"
        case $allowance in
        *'no line'*) [[ $status -ne 0 ]] || status=1 ;;
        *over*) [[ -z ${JUDGE_TIMES-} || $status -ne 0 ]] || status=1 ;;
        esac
        unset "steps_seconds[${step_names[i]}]"
    done
    # Only a script that came to its end and skipped nothing has had all its steps.
    if [[ $status -eq 0 && -z $skipped && ${#steps_seconds[@]} -gt 0 ]]; then
        printf 'in the budget, but no step: %s\n' "${!steps_seconds[@]}"
        status=1
    fi
    local pattern
    for pattern in "${steps_asked[@]}"; do
        [[ $status -eq 0 && -z ${steps_matched[$pattern]-} ]] || continue
        printf 'no step has a name like: %s\n' "$pattern"
        status=2
    done
    [[ -z $background_logs ]] || rm -rf "$background_logs"
    ms=$(($(date +%s%3N) - script_since))
    printf '%-28s %7d.%d  %s\n' total $((ms / 1000)) $((ms % 1000 / 100)) \
        "$([[ $status -eq 0 ]] && echo ok || echo "FAILED (exit $status)")"
    return "$status"
}
trap steps_finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# cargo and rustup: the toolchain of rust-toolchain.toml with its components.
toolchain() {
    cargo --version >/dev/null 2>&1 || rustup toolchain install
    rustup component add rustfmt clippy
    cargo --version
    rustc --version
}

powerpc=powerpc64le-unknown-linux-gnu
powerpc_packages=(gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross qemu-user)

powerpc_tools() {
    command -v powerpc64le-linux-gnu-gcc && command -v qemu-ppc64le &&
        [[ -e /usr/powerpc64le-linux-gnu/include/stdio.h ]]
} >/dev/null

powerpc_install() {
    apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${powerpc_packages[@]}"
}

powerpc_ready() {
    if [[ $(uname -m) == ppc64le ]]; then
        skip "$1" "this is a powerpc64le machine, the other steps ran on it"
        return 1
    fi
    powerpc_tools && return
    if [[ $(id -u) -ne 0 ]]; then
        skip "$1" "not root, and these packages are missing: ${powerpc_packages[*]}"
        return 1
    fi
    if ! command -v apt-get >/dev/null; then
        skip "$1" "no apt-get to install ${powerpc_packages[*]}"
        return 1
    fi
    if ! powerpc_install || ! powerpc_tools; then
        skip "$1" "apt-get could not install ${powerpc_packages[*]}"
        return 1
    fi
}

powerpc_env() { # COMMAND [ARG...], with qemu's CPU in $powerpc_cpu
    CC_powerpc64le_unknown_linux_gnu=powerpc64le-linux-gnu-gcc \
        CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER=powerpc64le-linux-gnu-gcc \
        CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUNNER="qemu-ppc64le -cpu ${powerpc_cpu:-power8} -L /usr/powerpc64le-linux-gnu" \
        "$@"
}

powerpc_test() {
    local powerpc_cpu=$1
    powerpc_env cargo test -p tce-engine --lib --target "$powerpc" --locked
}

# The profiler of this target, which is its own.
powerpc_profile() {
    local powerpc_cpu=power8
    powerpc_env cargo test -p tce-bench --lib --target "$powerpc" --locked profile::tests
}

# The tests of the loops over TCEs alone.
powerpc_tiers() { # CPU [CARGO ARG...]
    local powerpc_cpu=$1
    powerpc_env cargo test -p tce-engine --lib --target "$powerpc" --locked "${@:2}" simd
}

# The tier by core::arch, which the pinned compiler has behind a gate.
powerpc_core_arch() {
    RUSTC_BOOTSTRAP=1 powerpc_tiers power9 --features stdarch-powerpc
}

host() {
    rustc -vV | sed -n 's/^host: //p'
}

# Miri's sysroot is built for a target when it is first asked for.
miri_toolchain() {
    if ! cargo +nightly miri --version; then
        rustup toolchain install nightly --profile minimal --component miri,rust-src
    fi
}

# Miri is some hundred times slower than the machine, hence few random cases; proptest asks for the working
# directory, which Miri's isolation forbids.
miri() {
    MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation" PROPTEST_CASES="${MIRI_CASES:-4}" \
        cargo +nightly miri test -p tce-engine --lib --locked --target "$1" -- "${@:2}"
}

valgrind_ready() {
    command -v valgrind >/dev/null && return
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        skip "$1" "valgrind is missing; it takes root and apt-get to install it"
        return 1
    fi
    if ! apt-get update || ! apt-get install -y --no-install-recommends valgrind; then
        skip "$1" "apt-get could not install valgrind"
        return 1
    fi
}
