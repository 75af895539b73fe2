// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which kernel is simulated, and what a case may expect of it. A real kernel is as the newest.

use std::sync::{Mutex, PoisonError};

use tce_engine::addr::PageShift;
use tce_engine::backend::linux::mock_kernel::{Admission, DefaultWindow, Profile, View};
use tce_engine::backend::linux::raw::Raw;
use tce_engine::backend::linux::uapi::Request;
use tce_engine::platform::Platform;

use crate::case::{Column, Done, Stop};
use crate::ctx::{Ctx, charge};
use crate::options::Options;

/// What the simulated machine is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) profile: Profile,
    pub(crate) platform: Platform,
    pub(crate) host_page: PageShift,
}

static NOW: Mutex<Kernel> = Mutex::new(Kernel {
    profile: Profile::K6_11,
    platform: Platform::Phb3,
    host_page: PageShift::K64,
});

impl Kernel {
    /// What machines are from now on.
    pub(crate) fn select(self) {
        *NOW.lock().unwrap_or_else(PoisonError::into_inner) = self;
    }

    /// Those that were asked for: one, or the usual one and then all others.
    pub(crate) fn wanted(options: &Options, real: bool) -> Result<Vec<Self>, String> {
        let named = options.profile.is_some() || options.platform.is_some();
        if real && named {
            return Err("--profile and --platform are for simulated kernels".to_owned());
        }
        let host_page = options.host_page.unwrap_or(PageShift::K64);
        let profile = options.profile.unwrap_or(Profile::K6_11);
        let platform = options.platform.unwrap_or(profile.usual_platform());
        profile.runs_on(platform).map_err(|e| e.to_string())?;
        let mut all = vec![Self { profile, platform, host_page }];
        if !real && !named {
            let of = |profile: Profile, platform| Self { profile, platform, host_page };
            let others = Profile::ALL.into_iter().filter(|other| *other != profile);
            all.extend(others.map(|other| of(other, other.usual_platform())));
            all.extend([Platform::Phb4, Platform::Phb5].map(|platform| of(profile, platform)));
            if options.host_page.is_none() {
                all.push(Self { host_page: PageShift::K4, ..all[0] });
            }
        }
        Ok(all)
    }

    pub(crate) fn now() -> Self {
        *NOW.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ctx {
    pub(crate) fn profile(&self) -> Profile {
        if self.is_real() { Profile::K6_11 } else { Kernel::now().profile }
    }

    pub(crate) fn platform(&self) -> Platform {
        if self.is_real() { Platform::Phb3 } else { Kernel::now().platform }
    }

    /// True of this profile and of all later ones; a guest's is as late as can be.
    pub(crate) fn since(&self, first: Profile) -> bool {
        let place = |p: Profile| Profile::ALL.iter().position(|one| *one == p);
        place(self.profile()) >= place(first)
    }

    /// One of two expectations: of a profile and later ones, or of earlier ones.
    pub(crate) fn by<T>(&self, first: Profile, later: T, earlier: T) -> T {
        if self.since(first) { later } else { earlier }
    }

    /// The case needs groups that share a table.
    pub(crate) fn needs_sharing(&self) -> Done {
        if self.platform().shares_tables() {
            return Ok(());
        }
        Err(Stop::Skip("a guest's tables are of one group each".to_owned()))
    }

    /// The case needs tables of several levels.
    pub(crate) fn needs_levels(&self) -> Done {
        if self.platform().max_levels() > 1 {
            return Ok(());
        }
        Err(Stop::Skip("a guest's tables have one level".to_owned()))
    }

    /// The case needs a kernel that adds levels as they are needed.
    pub(crate) fn needs_growth(&self) -> Done {
        self.needs_levels()?;
        if self.profile().levels_on_demand {
            return Ok(());
        }
        Err(Stop::Skip("this kernel makes all levels with the window".to_owned()))
    }

    /// Groups of which version 1 containers can be made. Kernels that keep version 1 for groups
    /// without dynamic windows get such groups, which have their table from the start.
    pub(crate) fn for_version_1(&mut self) -> Done {
        if self.is_real() || self.own_tables || !self.has_own_tables() {
            return Ok(());
        }
        self.own_tables = true;
        self.rebuild(|machine| {
            (0..crate::rig::GROUPS as u32).fold(machine, |machine, n| {
                machine.group(tce_engine::GroupId(n), |group| group.max_windows = 0)
            })
        })
    }

    fn has_own_tables(&self) -> bool {
        self.profile().admission == Admission::ByDynamicWindows
    }

    /// Host pages that the table of a version 1 container costs.
    pub(crate) fn v1_cost(&self) -> i64 {
        let twice = charge(self.host(), 12, 2 << 30, 1) as i64;
        match self.profile().view {
            _ if self.has_own_tables() => 0,
            View::Tree => twice,
            _ => twice / 2,
        }
    }

    /// Host pages that are locked for a group's default window as soon as it is there.
    pub(crate) fn early(&self) -> i64 {
        if self.profile().default_window == DefaultWindow::AtAttach {
            self.default_cost()
        } else {
            0
        }
    }

    /// The same of a version 1 container, and what is added by its first request.
    pub(crate) fn v1_early(&self) -> i64 {
        if self.early() > 0 { self.v1_cost() } else { 0 }
    }

    pub(crate) fn v1_later(&self) -> i64 {
        self.v1_cost() - self.v1_early()
    }

    /// The answer to a request that ends with nothing done at page 0, where no hang keeps it away.
    pub(crate) fn nothing_done(&mut self, answer: Raw, otherwise: &str) -> Done {
        let hangs = self.profile().empty_kill_hangs && self.platform() == Platform::Phb3;
        self.says("the answer", answer, if hangs { "EIO" } else { otherwise });
        if hangs { self.damages("hang") } else { Ok(()) }
    }

    /// Two levels, or what there is.
    pub(crate) fn two_levels(&self) -> u32 {
        self.platform().max_levels().min(2)
    }

    /// The case needs windows of such pages.
    pub(crate) fn needs_pages(&self, page: PageShift) -> Done {
        if self.is_real() || self.platform().page_sizes().contains(page) {
            return Ok(());
        }
        Err(Stop::Skip(format!("{} has no pages of {page}", self.platform())))
    }

    /// Host pages that stay charged when a window cannot be made after all.
    pub(crate) fn leak_of(&self, size: u64, shift: u32, levels: u32) -> i64 {
        let tried = self.profile().failed_create_leaks && levels <= self.platform().max_levels();
        if tried { self.attempt(size, shift, levels) } else { 0 }
    }

    /// Host pages that a window costs by now. A flat view that is made late comes with a MAP.
    pub(crate) fn cost(&self, size: u64, shift: u32, levels: u32) -> i64 {
        let twice = charge(self.host(), shift, size, levels);
        // Never smaller than a host page of entries.
        let view = ((size >> shift) * 8).div_ceil(self.p()).max(1);
        let mapped =
            || self.spy.sent()[self.afresh..].iter().any(|sent| sent.request == Request::MapDma);
        let pages = match self.profile().view {
            View::Tree => twice,
            View::FlatAtCreate => twice / 2 + view,
            View::FlatAtFirstMap => twice / 2 + if mapped() { view } else { 0 },
        };
        pages as i64
    }

    /// What a kernel charges for a window that it then cannot make.
    pub(crate) fn attempt(&self, size: u64, shift: u32, levels: u32) -> i64 {
        let twice = charge(self.host(), shift, size, levels) as i64;
        if self.profile().view == View::Tree { twice } else { twice / 2 }
    }

    /// The ledger may show more than is locked: a kernel that makes the views late cannot be asked
    /// to make them before a container has memory, and until then the ledger pays ahead.
    pub(crate) fn pays_ahead(&self) -> bool {
        self.profile().view == View::FlatAtFirstMap && self.column() == Column::Engine
    }
}
