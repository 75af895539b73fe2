// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cases. Ids are those of the list of black-box cases; from 30 on, and with other letters, they
//! are facts that were observed and have no case there. Each file has one letter.
//!
//! On a real kernel no raw case touches page 0 of a window at bus address 0 with a request that may
//! fail, nor goes beyond the memory of a table: the first hangs Linux 6.12, the second damages it.

mod a;
mod d;
mod e;
mod f;
mod f_more;
mod f_random;
mod g;
mod g_more;
mod h;
mod h_more;
mod i;
mod i_more;
mod l;
mod o;

use crate::case::Case;

/// All of them, in order.
pub(crate) fn all() -> Vec<Case> {
    let lists = [
        a::CASES,
        d::CASES,
        e::CASES,
        f::CASES,
        f_random::CASES,
        f_more::CASES,
        g::CASES,
        g_more::CASES,
        h::CASES,
        h_more::CASES,
        i::CASES,
        i_more::CASES,
        l::CASES,
        o::CASES,
    ];
    lists.concat()
}
