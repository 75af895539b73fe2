# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Sourced by what needs a tool that cargo installs; their versions stand here and nowhere else.
#
#   cargo_tool NAME  installs cargo-NAME unless it is here; fails if it is not to be had
#   cargo_fast_install CRATE VERSION  installs a program that is used once or twice, so nothing is optimised

declare -A cargo_tools=(
    [cyclonedx]=0.5.9
    [deny]=0.20.2
    [fuzz]=0.13.2
    [llvm-cov]=0.9.1
    [mutants]=27.0.0
    [semver-checks]=0.50.0
)

cargo_tool() { # NAME
    local version=${cargo_tools[$1]}
    [[ $(cargo "$1" --version 2>/dev/null) == *" $version" ]] ||
        cargo_fast_install "cargo-$1" "$version"
}

cargo_fast_install() { # CRATE VERSION
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 cargo install --debug --locked --version "$2" "$1"
}
