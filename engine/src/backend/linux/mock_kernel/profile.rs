// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What differs from kernel to kernel. A further kernel is a further constant.

/// The habits of one range of kernels. Every field is a branch somewhere in this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What results are labelled with.
    pub name: &'static str,
    /// Only the process that first used a container may use it; others get EPERM.
    pub owner_only: bool,
    /// A bus address off a page's start is answered by +1 instead of EINVAL.
    pub misaligned_is_one: bool,
    /// UNMAP checks the end of its range, not only its first page, and answers EINVAL.
    pub unmap_checks_end: bool,
    /// UNREGISTER of mapped memory returns 0 and leaves the region without an owner, instead of
    /// EBUSY.
    pub unregister_orphans: bool,
    /// A registration that finds only some of its pages returns their number, instead of EFAULT.
    pub short_pin_is_positive: bool,
    /// A CREATE that fails after its charge never returns it.
    pub failed_create_leaks: bool,
    /// A window is cleared before it is unset, and a group that leaves clears all windows of its
    /// container.
    pub clear_before_unset: bool,
    /// Killing no pages from the first entry of a window at 0 does not end.
    pub empty_kill_hangs: bool,
    /// The size of a hugetlb page stands for the small pages that follow it in a region, too.
    pub stale_backing: bool,
    /// A table that decodes as many address bits, or more, is refused.
    pub refused_bits: u32,
}

impl Profile {
    /// Linux 6.11 and later, until UNMAP was given a check of its end again (7.2 has it).
    pub const K6_11: Self = Self {
        name: "k6_11",
        owner_only: true,
        misaligned_is_one: true,
        unmap_checks_end: false,
        unregister_orphans: true,
        short_pin_is_positive: true,
        failed_create_leaks: true,
        clear_before_unset: true,
        empty_kill_hangs: true,
        stale_backing: true,
        refused_bits: 55,
    };

    /// All of them, oldest first.
    pub const ALL: [Self; 1] = [Self::K6_11];

    /// The one of this name.
    ///
    /// # Errors
    /// Which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name == name).ok_or_else(|| format!("no profile {name}"))
    }
}
