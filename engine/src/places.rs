// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Places that are taken, given up and taken again, so that numbers of them stay small.

/// Puts something into the first free place, or behind the last; its number.
pub(crate) fn put<T>(places: &mut Vec<Option<T>>, what: T) -> usize {
    match places.iter().position(Option::is_none) {
        Some(free) => {
            places[free] = Some(what);
            free
        }
        None => {
            places.push(Some(what));
            places.len() - 1
        }
    }
}
