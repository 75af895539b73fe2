# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Sourced by scripts/power8-vm: static powerpc64le programs of this tree.
#
#   build            sets programs=(FILE...), by cargo's profile $profile

rust_target=powerpc64le-unknown-linux-gnu

cross_ready() {
    command -v "$cross_prefix-gcc" >/dev/null &&
        echo 'int main(void) { return 0; }' |
        "$cross_prefix-gcc" -static -x c -o "$run/probe" - 2>/dev/null
}

rust_ready() {
    command -v cargo >/dev/null ||
        die 4 "no cargo to build with: install rustup, or give --bin DIR"
    [[ -d $(rustc --print sysroot)/lib/rustlib/$rust_target ]] && return
    command -v rustup >/dev/null ||
        die 4 "the Rust compiler lacks $rust_target and there is no rustup to add it"
    note "adding the Rust target $rust_target"
    rustup target add "$rust_target" >&2 || die 4 "could not add $rust_target"
}

cargo_static() {
    env "PATH=${cross:+$cross:}$PATH" \
        "CARGO_TARGET_DIR=$target_dir" \
        CC_powerpc64le_unknown_linux_gnu="$cross_prefix-gcc" \
        CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER="$cross_prefix-gcc" \
        CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
        cargo "$@" --profile "$profile" --locked --target "$rust_target" \
        --message-format=json-render-diagnostics
}

# cargo's messages tell where it put a program; they name the file of each target it was asked for.
cargo_program() { # NAME CARGO-ARGUMENT...
    local name=$1 file
    shift
    file=$(cargo_static "$@" |
        sed -n "/\"name\":\"$name\"/s/.*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1) ||
        die 1 "could not build $name"
    [[ -n $file ]] || die 1 "cargo built no program $name"
    cp "$file" "$run/$name"
    programs+=("$run/$name")
}

build() {
    rust_ready
    cd "$root" || die 1 "cannot enter $root"
    note "building the static powerpc64le programs"
    cargo_program tce-bench build -p tce-bench --bin tce-bench
    if [[ -d engine/tests/conformance || -e engine/tests/conformance.rs ]]; then
        cargo_program conformance test --no-run -p tce-engine --test conformance
    else
        note "no test target conformance in this tree: left out"
    fi
    note "built: $(du -ch --apparent-size "${programs[@]}" | sed -n '$s/\t.*//p')"
}
