// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a kernel charges for a window, which is not the same on all. It is found out by a window of
//! a trial container, never from a version.

use super::opened::Opened;
use super::raw::RawHost;
use super::uapi::TceInfo;
use super::{LinuxOptions, Version};
use crate::addr::{Ioba, PageShift};
use crate::backend::WindowCost;
use crate::geometry::{Geometry, WindowSpec};

/// How a window is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charging {
    /// Its table twice, as the user addresses behind the entries have a tree of the same shape.
    Twice,
    /// Its table, and an array of user addresses.
    Flat,
    /// Its table when it is created, the array by the first MAP.
    FlatLater,
    /// Its table alone.
    Once,
    /// Nothing: the table stood there before.
    Nothing,
}

impl Charging {
    /// What CREATE alone charges, in bytes.
    pub(super) fn created(self, geometry: &Geometry) -> u64 {
        let table = geometry.charge() / 2;
        match self {
            Self::Twice => 2 * table,
            Self::Flat => table + array(geometry),
            Self::FlatLater | Self::Once => table,
            Self::Nothing => 0,
        }
    }

    /// What a window costs in the end.
    pub(super) fn cost(self, geometry: &Geometry, version: Version) -> WindowCost {
        let later = if self == Self::FlatLater { array(geometry) } else { 0 };
        let ahead = if version == Version::V1 { geometry.size() } else { 0 };
        WindowCost { table: self.created(geometry) + later, ahead }
    }

    /// True if groups that join later may not get the windows. The kernels that forgot them are
    /// among those that make the array late, and others of those cannot be told from them.
    pub(super) fn may_forget_windows(self) -> bool {
        self == Self::FlatLater
    }

    /// Looks at what a window of the trial container, which is nobody else's, is charged with.
    /// `None` if the process's books moved for other reasons meanwhile.
    pub(super) fn probe(
        trial: &mut Opened,
        info: &TceInfo,
        host: &dyn RawHost,
        options: LinuxOptions,
        before: u64,
    ) -> Option<Self> {
        match options.version {
            Version::V1 => Self::probe_v1(trial, info, host, before),
            Version::V2 => (0..3).find_map(|_| Self::probe_v2(trial, info, host)),
        }
    }

    /// A window of two levels, if there can be one, as only that tells all kinds apart. With one
    /// level the first two cost the same.
    fn probe_v2(trial: &mut Opened, info: &TceInfo, host: &dyn RawHost) -> Option<Self> {
        let start = Ioba(info.dma32_window_start.into());
        // Gone already at the second try.
        let _ = trial.remove_window(start);
        let page = PageShift::K4;
        let host_page = host.host_page();
        let spec = WindowSpec::new(page.bytes() * (host_page.bytes() / 8), page);
        let spec = spec.levels(info.ddw.levels.clamp(1, 2));
        let geometry = Geometry::new(spec, host_page, u64::MAX).ok()?;
        let before = host.locked_bytes();
        trial.create(&geometry, start).ok()?;
        let charged = host.locked_bytes().checked_sub(before);
        trial.remove_window(start).ok()?;
        let found = [Self::Twice, Self::Flat, Self::FlatLater]
            .into_iter()
            .find(|kind| Some(kind.created(&geometry)) == charged)?;
        (host.locked_bytes() == before).then_some(found)
    }

    /// The one window of a version 1 container, whether it was made when the group joined or is by
    /// the first request. `before` is what was locked before the group joined.
    fn probe_v1(
        trial: &mut Opened,
        info: &TceInfo,
        host: &dyn RawHost,
        before: u64,
    ) -> Option<Self> {
        let (start, size) = (Ioba(info.dma32_window_start.into()), info.dma32_window_size);
        let spec = WindowSpec::new(size.into(), PageShift::K4).levels(1);
        let geometry = Geometry::new(spec, host.host_page(), u64::MAX).ok()?;
        trial.enable().ok()?;
        trial.force_default_window(start).ok()?;
        let charged = host.locked_bytes().checked_sub(before + u64::from(size));
        [Self::Twice, Self::Once, Self::Nothing]
            .into_iter()
            .find(|kind| Some(kind.created(&geometry)) == charged)
    }
}

/// Bytes of an array with a user address for each entry. Tables have whole host pages of entries.
fn array(geometry: &Geometry) -> u64 {
    8 * geometry.entries()
}
