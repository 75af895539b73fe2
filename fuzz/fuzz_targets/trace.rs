// SPDX-License-Identifier: Apache-2.0 OR MIT
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tce_bench::fuzz::trace(data));
