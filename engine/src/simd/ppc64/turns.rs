// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The loops, in POWER's assembly language. Each does one or more whole turns.
//!
//! v0 to v19 may be used freely; vector register n is VSX register 32 + n, which is how the loads
//! and stores and the logical instructions call it. A doubleword that `lxvd2x` loads is the number
//! that `ld` would load.

use std::arch::asm;

use crate::sync::Slot;
use crate::tce::{Summary, Tce};

/// Entries that one turn of a loop handles: four vectors, half a cache line.
pub(super) const TURN: usize = 8;

/// What a loop has found of the live entries, and the number of the others.
pub(super) struct Totals {
    and: u64,
    or: u64,
    empty: u64,
}

impl Totals {
    /// The summary if the loop has seen values.
    pub(super) fn of_values(self, turns: usize) -> Summary {
        Summary { live: (turns * TURN) as u64 - self.empty, and: self.and, or: self.or }
    }

    /// The summary if the loop has seen words.
    pub(super) fn of_words(self, turns: usize) -> Summary {
        let s = self.of_values(turns);
        Summary { and: u64::from_be(s.and), or: u64::from_be(s.or), ..s }
    }
}

/// Writes `word` to every slot.
///
/// # Safety
/// `to` points to `turns` turns of slots, at least one, that stay valid for the call.
pub(super) unsafe fn store(to: *const Slot, turns: usize, word: u64) {
    // SAFETY: the caller vouches for the memory; slots are atomics, so writing through a shared
    // pointer is allowed, and asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "mtctr {turns}",
            "mtvsrd 34, {word}",
            "xxpermdi 34, 34, 34, 0",
            "2:",
            "stxvd2x 34, 0, {to}",
            "stxvd2x 34, {to}, {at16}",
            "stxvd2x 34, {to}, {at32}",
            "stxvd2x 34, {to}, {at48}",
            "addi {to}, {to}, 64",
            "bdnz 2b",
            turns = in(reg) turns,
            word = in(reg) word,
            to = inout(reg_nonzero) to => _,
            at16 = in(reg) 16,
            at32 = in(reg) 32,
            at48 = in(reg) 48,
            out("v2") _,
            out("ctr") _,
            options(nostack),
        );
    }
}

/// Writes a list of words.
///
/// # Safety
/// `to` points to `turns` turns of slots, at least one, and `from` to as many doublewords; both stay
/// valid for the call.
pub(super) unsafe fn put(to: *const Slot, from: *const u64, turns: usize) {
    // SAFETY: as in `store`.
    unsafe {
        asm!(
            "mtctr {turns}",
            "2:",
            "lxvd2x 34, 0, {from}",
            "lxvd2x 35, {from}, {at16}",
            "lxvd2x 36, {from}, {at32}",
            "lxvd2x 37, {from}, {at48}",
            "addi {from}, {from}, 64",
            "stxvd2x 34, 0, {to}",
            "stxvd2x 35, {to}, {at16}",
            "stxvd2x 36, {to}, {at32}",
            "stxvd2x 37, {to}, {at48}",
            "addi {to}, {to}, 64",
            "bdnz 2b",
            turns = in(reg) turns,
            from = inout(reg_nonzero) from => _,
            to = inout(reg_nonzero) to => _,
            at16 = in(reg) 16,
            at32 = in(reg) 32,
            at48 = in(reg) 48,
            out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("ctr") _,
            options(nostack),
        );
    }
}

/// Writes a list of words, and what was there to `old`.
///
/// # Safety
/// As for [`put`]; `old` points to as many doublewords that are the caller's alone.
pub(super) unsafe fn exchange(to: *const Slot, from: *const u64, old: *mut u64, turns: usize) {
    // SAFETY: as in `store`.
    unsafe {
        asm!(
            "mtctr {turns}",
            "2:",
            "lxvd2x 34, 0, {from}",
            "lxvd2x 35, {from}, {at16}",
            "lxvd2x 36, {from}, {at32}",
            "lxvd2x 37, {from}, {at48}",
            "addi {from}, {from}, 64",
            "lxvd2x 38, 0, {to}",
            "lxvd2x 39, {to}, {at16}",
            "lxvd2x 40, {to}, {at32}",
            "lxvd2x 41, {to}, {at48}",
            "stxvd2x 34, 0, {to}",
            "stxvd2x 35, {to}, {at16}",
            "stxvd2x 36, {to}, {at32}",
            "stxvd2x 37, {to}, {at48}",
            "addi {to}, {to}, 64",
            "stxvd2x 38, 0, {old}",
            "stxvd2x 39, {old}, {at16}",
            "stxvd2x 40, {old}, {at32}",
            "stxvd2x 41, {old}, {at48}",
            "addi {old}, {old}, 64",
            "bdnz 2b",
            turns = in(reg) turns,
            from = inout(reg_nonzero) from => _,
            to = inout(reg_nonzero) to => _,
            old = inout(reg_nonzero) old => _,
            at16 = in(reg) 16,
            at32 = in(reg) 32,
            at48 = in(reg) 48,
            out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v6") _, out("v7") _, out("v8") _, out("v9") _,
            out("ctr") _,
            options(nostack),
        );
    }
}

/// Fills, one by one.
///
/// # Safety
/// `to` points to `n` slots, at least one, that stay valid for the call.
pub(super) unsafe fn fill_few(to: *const Slot, n: usize, first: u64, step: u64) {
    // SAFETY: as in `store`.
    unsafe {
        asm!(
            "mtctr {n}",
            "2:",
            "stdbrx {next}, 0, {to}",
            "add {next}, {next}, {step}",
            "addi {to}, {to}, 8",
            "bdnz 2b",
            n = in(reg) n,
            next = inout(reg) first => _,
            step = in(reg) step,
            to = inout(reg_nonzero) to => _,
            out("ctr") _,
            options(nostack),
        );
    }
}

/// A loop that fills. Its instructions `swap` reverse the bytes of v2 to v5's doublewords into v14
/// to v17; those for POWER8 have the permutation for that in v13.
macro_rules! fill {
    ($name:ident, $swap:tt) => {
        /// Writes an arithmetic run.
        ///
        /// # Safety
        /// `to` points to `turns` turns of slots, at least one, that stay valid for the call. The
        /// machine can run the instructions.
        pub(super) unsafe fn $name(to: *const Slot, turns: usize, first: u64, step: u64) {
            fill!(@asm $swap, to, turns, first, step)
        }
    };
    (@asm [$($swap:literal),+], $to:ident, $turns:ident, $first:ident, $step:ident) => {
        // SAFETY: as in `store`.
        unsafe {
            asm!(
                "mtctr {turns}",
                "mtvsrd 34, {first}",
                "mtvsrd 35, {second}",
                "xxpermdi 34, 34, 35, 0",
                // v11: two entries ahead, v12: a turn ahead.
                "mtvsrd 43, {two}",
                "xxpermdi 43, 43, 43, 0",
                "mtvsrd 44, {eight}",
                "xxpermdi 44, 44, 44, 0",
                "mtvsrd 45, {high}",
                "mtvsrd 46, {low}",
                "xxpermdi 45, 45, 46, 0",
                "vaddudm 3, 2, 11",
                "vaddudm 4, 3, 11",
                "vaddudm 5, 4, 11",
                "2:",
                $($swap,)+
                "stxvd2x 46, 0, {to}",
                "stxvd2x 47, {to}, {at16}",
                "stxvd2x 48, {to}, {at32}",
                "stxvd2x 49, {to}, {at48}",
                "vaddudm 2, 2, 12",
                "vaddudm 3, 3, 12",
                "vaddudm 4, 4, 12",
                "vaddudm 5, 5, 12",
                "addi {to}, {to}, 64",
                "bdnz 2b",
                turns = in(reg) $turns,
                first = in(reg) $first,
                second = in(reg) $first.wrapping_add($step),
                two = in(reg) $step.wrapping_mul(2),
                eight = in(reg) $step.wrapping_mul(8),
                high = in(reg) SWAP[0],
                low = in(reg) SWAP[1],
                to = inout(reg_nonzero) $to => _,
                at16 = in(reg) 16,
                at32 = in(reg) 32,
                at48 = in(reg) 48,
                out("v2") _, out("v3") _, out("v4") _, out("v5") _,
                out("v11") _, out("v12") _, out("v13") _, out("v14") _,
                out("v15") _, out("v16") _, out("v17") _,
                out("ctr") _,
                options(nostack),
            );
        }
    };
}

/// For `vperm`: which byte of a vector goes where, to reverse each doubleword.
const SWAP: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

fill!(fill_power8, ["vperm 14,2,2,13", "vperm 15,3,3,13", "vperm 16,4,4,13", "vperm 17,5,5,13"]);
fill!(fill_power9, ["xxbrd 46, 34", "xxbrd 47, 35", "xxbrd 48, 36", "xxbrd 49, 37"]);

/// The OR of all words.
///
/// # Safety
/// `from` points to `turns` turns of slots, at least one.
pub(super) unsafe fn or(from: *const Slot, turns: usize) -> u64 {
    let or;
    // SAFETY: as in `store`.
    unsafe {
        asm!(
            "mtctr {turns}",
            "xxlxor 38, 38, 38",
            "xxlxor 39, 39, 39",
            "2:",
            "lxvd2x 34, 0, {from}",
            "lxvd2x 35, {from}, {at16}",
            "lxvd2x 36, {from}, {at32}",
            "lxvd2x 37, {from}, {at48}",
            "xxlor 34, 34, 35",
            "xxlor 36, 36, 37",
            "xxlor 38, 38, 34",
            "xxlor 39, 39, 36",
            "addi {from}, {from}, 64",
            "bdnz 2b",
            "xxlor 38, 38, 39",
            "xxpermdi 39, 38, 38, 2",
            "xxlor 38, 38, 39",
            "mfvsrd {or}, 38",
            turns = in(reg) turns,
            from = inout(reg_nonzero) from => _,
            at16 = in(reg) 16,
            at32 = in(reg) 32,
            at48 = in(reg) 48,
            or = lateout(reg) or,
            out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("ctr") _,
            options(nostack, readonly),
        );
    }
    or
}

/// A loop that finds totals. `from` is where the entries are that count, in v2 to v5; `control` has
/// the control bits where these have them. `write` is what else a turn does, with `to` and what
/// `more` sets; it has v15 (which is the permutation) to v19, and v11, which is 0.
macro_rules! totals {
    ($from:expr, $to:expr, $turns:expr, $control:expr, write [$($write:literal),+]) => {{
        let (and, or, empty);
        // SAFETY: as in `store`.
        unsafe {
            asm!(
                "mtctr {turns}",
                "xxleqv 41, 41, 41",
                "xxlxor 42, 42, 42",
                "xxlxor 43, 43, 43",
                "mtvsrd 44, {control}",
                "xxpermdi 44, 44, 44, 0",
                "xxlxor 45, 45, 45",
                "mtvsrd 46, {four}",
                "xxpermdi 46, 46, 46, 0",
                "mtvsrd 47, {high}",
                "mtvsrd 48, {low}",
                "xxpermdi 47, 47, 48, 0",
                "2:",
                "lxvd2x 34, 0, {from}",
                "lxvd2x 35, {from}, {at16}",
                "lxvd2x 36, {from}, {at32}",
                "lxvd2x 37, {from}, {at48}",
                // v6: AND, v7: OR of the turn.
                "xxland 38, 34, 35",
                "xxland 40, 36, 37",
                "xxland 38, 38, 40",
                "xxlor 39, 34, 35",
                "xxlor 40, 36, 37",
                "xxlor 39, 39, 40",
                // If both lanes of AND have a control bit then all are live.
                "xxland 40, 38, 44",
                "vcmpequd. 8, 8, 11",
                "bne 6, 4f",
                "xxland 41, 41, 38",
                "xxlor 42, 42, 39",
                "3:",
                $($write,)+
                "addi {from}, {from}, 64",
                "bdnz 2b",
                "b 6f",
                // If no lane of OR has one then none is.
                "4:",
                "xxland 40, 39, 44",
                "vcmpequd. 8, 8, 11",
                "bge 6, 5f",
                "vaddudm 13, 13, 14",
                "b 3b",
                // Otherwise lane by lane. A comparison gives −1.
                "5:",
                "xxland 40, 34, 44",
                "vcmpequd 8, 8, 11",
                "xxlor 38, 34, 40",
                "xxlandc 39, 34, 40",
                "vsubudm 13, 13, 8",
                "xxland 41, 41, 38",
                "xxlor 42, 42, 39",
                "xxland 40, 35, 44",
                "vcmpequd 8, 8, 11",
                "xxlor 38, 35, 40",
                "xxlandc 39, 35, 40",
                "vsubudm 13, 13, 8",
                "xxland 41, 41, 38",
                "xxlor 42, 42, 39",
                "xxland 40, 36, 44",
                "vcmpequd 8, 8, 11",
                "xxlor 38, 36, 40",
                "xxlandc 39, 36, 40",
                "vsubudm 13, 13, 8",
                "xxland 41, 41, 38",
                "xxlor 42, 42, 39",
                "xxland 40, 37, 44",
                "vcmpequd 8, 8, 11",
                "xxlor 38, 37, 40",
                "xxlandc 39, 37, 40",
                "vsubudm 13, 13, 8",
                "xxland 41, 41, 38",
                "xxlor 42, 42, 39",
                "b 3b",
                "6:",
                "xxpermdi 34, 41, 41, 2",
                "xxland 41, 41, 34",
                "mfvsrd {and}, 41",
                "xxpermdi 34, 42, 42, 2",
                "xxlor 42, 42, 34",
                "mfvsrd {or}, 42",
                "xxpermdi 34, 45, 45, 2",
                "vaddudm 13, 13, 2",
                "mfvsrd {empty}, 45",
                turns = in(reg) $turns,
                from = inout(reg_nonzero) $from => _,
                to = inout(reg_nonzero) $to => _,
                at16 = in(reg) 16,
                at32 = in(reg) 32,
                at48 = in(reg) 48,
                control = in(reg) $control,
                four = in(reg) 4,
                high = in(reg) SWAP[0],
                low = in(reg) SWAP[1],
                and = out(reg) and,
                or = out(reg) or,
                empty = out(reg) empty,
                out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
                out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                out("ctr") _, out("cr6") _,
                options(nostack),
            );
        }
        Totals { and, or, empty }
    }};
}

/// The control bits of a word.
const WORD_CONTROL: u64 = Tce::from_value(Tce::CONTROL_MASK).to_be_word();

/// Totals of words.
///
/// # Safety
/// `from` points to `turns` turns of doublewords, at least one.
pub(super) unsafe fn scan(from: *const u64, turns: usize) -> Totals {
    // Reads only: there is nothing to write, and nowhere.
    totals!(from, from, turns, WORD_CONTROL, write["# {to}"])
}

/// Clears all slots; totals of what was there.
///
/// # Safety
/// `at` points to `turns` turns of slots, at least one, that stay valid for the call.
pub(super) unsafe fn take(at: *const Slot, turns: usize) -> Totals {
    totals!(at, at, turns, WORD_CONTROL, write [
        "stxvd2x 43, 0, {to}",
        "stxvd2x 43, {to}, {at16}",
        "stxvd2x 43, {to}, {at32}",
        "stxvd2x 43, {to}, {at48}",
        "addi {to}, {to}, 64"
    ])
}

/// Writes the words of `words`; totals of what was there.
///
/// # Safety
/// As for [`put`].
pub(super) unsafe fn replace(at: *const Slot, words: *const u64, turns: usize) -> Totals {
    totals!(at, words, turns, WORD_CONTROL, write [
        "lxvd2x 48, 0, {to}",
        "lxvd2x 49, {to}, {at16}",
        "lxvd2x 50, {to}, {at32}",
        "lxvd2x 51, {to}, {at48}",
        "addi {to}, {to}, 64",
        "stxvd2x 48, 0, {from}",
        "stxvd2x 49, {from}, {at16}",
        "stxvd2x 50, {from}, {at32}",
        "stxvd2x 51, {from}, {at48}"
    ])
}

/// A loop that writes a list of values and finds their totals.
macro_rules! list {
    ($name:ident, [$($swap:literal),+]) => {
        /// Writes a list of values; their totals.
        ///
        /// # Safety
        /// As for [`put`], and the machine can run the instructions.
        pub(super) unsafe fn $name(to: *const Slot, values: *const u64, turns: usize) -> Totals {
            totals!(values, to, turns, Tce::CONTROL_MASK, write [
                $($swap),+,
                "stxvd2x 48, 0, {to}",
                "stxvd2x 49, {to}, {at16}",
                "stxvd2x 50, {to}, {at32}",
                "stxvd2x 51, {to}, {at48}",
                "addi {to}, {to}, 64"
            ])
        }
    };
}

list!(list_power8, ["vperm 16,2,2,15", "vperm 17,3,3,15", "vperm 18,4,4,15", "vperm 19,5,5,15"]);
list!(list_power9, ["xxbrd 48, 34", "xxbrd 49, 35", "xxbrd 50, 36", "xxbrd 51, 37"]);
