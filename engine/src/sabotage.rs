// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guards of the engine that a test can take away, to see that something notices. Without the feature
//! `sabotage` they are constants.

/// A guard against one trap of the kernels, or one step of how cached translations are killed.
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
    /// Changed entries are killed.
    Kill,
    /// Entries that were empty are killed when they are filled.
    KillFill,
    /// They are killed after the table was changed, not before.
    ClearFirst,
    /// The kill names the PE that has the window.
    KillPe,
    /// The last page of a range is killed too.
    KillLast,
    /// Pages are killed in steps of the window's page.
    KillStep,
    /// All members are killed.
    Members,
    /// Kills are waited for.
    Fence,
    /// When a container ends, its memory is unpinned after its windows are gone.
    UnpinLast,
    /// What a handle owes is killed when it is settled.
    DebtKill,
    /// So is what other handles owe, when the structure changes.
    DebtOthers,
    /// It counts as killed only after a kill of everything.
    DebtAll,
    /// Entries in debt are marked, where fills do without a kill.
    DebtMark,
    /// PEs that join or leave, or get or lose a window, forget everything.
    Forget,
}

impl Guard {
    /// Those of the kills.
    pub const KILLS: [Self; 14] = [
        Self::Kill,
        Self::KillFill,
        Self::ClearFirst,
        Self::KillPe,
        Self::KillLast,
        Self::KillStep,
        Self::Members,
        Self::Fence,
        Self::UnpinLast,
        Self::Forget,
        Self::DebtKill,
        Self::DebtOthers,
        Self::DebtAll,
        Self::DebtMark,
    ];

    /// Those of kills that wait.
    pub const DEBTS: [Self; 4] = [Self::DebtKill, Self::DebtOthers, Self::DebtAll, Self::DebtMark];

    /// Those against traps.
    pub const TRAPS: [Self; 8] = [
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

/// `f` for another thread, without the guard that this one is without.
#[cfg(feature = "sabotage")]
pub fn inherit<T>(f: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let taken = TAKEN.get();
    move || match taken {
        Some(guard) => without(guard, f),
        None => f(),
    }
}

/// `f` as it is: no guard can be missing.
#[cfg(not(feature = "sabotage"))]
pub fn inherit<T>(f: impl FnOnce() -> T) -> impl FnOnce() -> T {
    f
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
