// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guards of the engine that a test can take away, to see that something notices. Without the feature
//! `sabotage` they are constants.

/// A guard against one trap of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Memory that is mapped cannot be unregistered.
    Mapped,
    /// What a leaving group's kernel has wiped is mapped again.
    Replay,
    /// What a failed map has wiped is put back.
    PutBack,
    /// A map over live entries is refused.
    Overlap,
    /// Only the exact start of a window removes it.
    ExactStart,
    /// Page 0 of a window at 0 is mapped only when its leaf exists.
    FirstLeaf,
    /// Groups whose windows begin elsewhere cannot join.
    SameStarts,
    /// Memory with a hole is not registered.
    Hole,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Mapped,
        Self::Replay,
        Self::PutBack,
        Self::Overlap,
        Self::ExactStart,
        Self::FirstLeaf,
        Self::SameStarts,
        Self::Hole,
    ];
}

#[cfg(feature = "sabotage")]
thread_local! {
    static TAKEN: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) };
}

/// Runs `f` on this thread without one guard.
#[cfg(feature = "sabotage")]
pub fn without<T>(guard: Guard, f: impl FnOnce() -> T) -> T {
    struct Back(Option<Guard>);
    impl Drop for Back {
        fn drop(&mut self) {
            TAKEN.set(self.0);
        }
    }
    let _back = Back(TAKEN.replace(Some(guard)));
    f()
}

/// True if the guard stands.
#[cfg(feature = "sabotage")]
pub(crate) fn stands(guard: Guard) -> bool {
    TAKEN.get() != Some(guard)
}

/// True: the guard stands.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub(crate) const fn stands(_: Guard) -> bool {
    true
}
