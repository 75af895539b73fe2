// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines: which kernels ran on them, and what their tables are like.

use super::profiles::{K6_4, builder, each, locked};
use super::*;

#[test]
fn pairs_that_never_were_are_refused() {
    use Platform as P;
    let possible: [&[Platform]; 7] = [
        &[P::P5ioc2, P::Ioda1, P::Phb3],
        &[P::Ioda1, P::Phb3, P::Phb4],
        &[P::Ioda1, P::Phb3, P::Phb4, P::Npu2],
        &[P::Ioda1, P::Phb3, P::Phb4, P::Phb5, P::Npu2],
        &[P::Ioda1, P::Phb3, P::Phb4, P::Phb5],
        &[P::Phb3, P::Phb4, P::Phb5],
        &[P::Pseries],
    ];
    let mut reasons = std::collections::BTreeSet::new();
    each(|profile, age| {
        for platform in Platform::ALL {
            let built = MockKernel::builder(1).profile(*profile).platform(platform).try_build();
            assert_eq!(built.is_ok(), possible[age].contains(&platform), "{profile} {platform}");
            if let Err(e) = built {
                let text = e.to_string();
                assert!(text.contains(platform.name()) && text.contains(profile.name), "{text}");
                let (_, why) = text.split_once(": ").unwrap();
                reasons.insert(why.split(';').next().unwrap().to_owned());
            }
        }
    });
    assert_eq!(reasons.len(), 7, "{reasons:?}");
}

#[test]
fn page_sizes_are_the_platforms() {
    each(|profile, _| {
        for platform in profile.platforms.iter().filter(|p| p.dynamic_windows() > 0) {
            let machine = MockKernel::builder(1).profile(*profile).platform(*platform);
            let process = machine.build().process();
            let c = container(&process, 0, 1, V2);
            let mut info = TceInfo::new();
            assert_eq!(c.info(&mut info), Ok(0));
            assert_eq!(info.ddw.pgsizes, platform.page_sizes().0);
            assert_eq!(info.ddw.levels, platform.max_levels());
            assert_eq!(remove(&c, 0), Ok(0));
            let pages = [(PageShift::M2, 21), (PageShift::M16, 24)];
            for (page, shift) in pages {
                let offered = platform.page_sizes().contains(page);
                let answer = if offered { Ok(0) } else { Err(Errno::EINVAL) };
                assert_eq!(create(&c, shift, GB, 1).0, answer, "{platform} {page}");
            }
        }
    });
}

#[test]
fn a_guest_shares_no_table() {
    let kernel = builder(&Profile::PSERIES, 3).build();
    let process = kernel.process();
    let c = container(&process, 0, 2, V2);
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(create(&c, 16, GB, 1).0, Err(Errno::EPERM), "one of the two cannot use it");
    assert_eq!((locked(&process), kernel.leftovers().windows), (0, 0));
    assert_eq!(c.close_group(GroupId(1)), Ok(0));
    assert_eq!(create(&c, 16, GB, 1), (Ok(0), 0));
    assert_eq!(create(&c, 16, GB, 1), (Ok(0), 1 << 59));
    assert_eq!(c.open_group(GroupId(2)), Ok(0));
    assert_eq!(c.set_container(GroupId(2)), Err(Errno::EPERM));
    assert_eq!(reg(&c, P, SZ), Ok(0));
    assert_eq!(map(&c, B, P, PS, RW), Ok(0));
    assert_eq!(reaches(&kernel, 0, B), Ok(P));
    end(&kernel, &process, c);
}

#[test]
fn a_guests_group_without_dynamic_windows_lends_its_table() {
    let kernel = builder(&Profile::PSERIES, 1).group(GroupId(0), |g| g.max_windows = 1).build();
    let process = kernel.process();
    let c = container(&process, 0, 1, V2);
    assert_eq!(remove(&c, 0), Ok(0));
    for (shift, size) in [(16, 2 * GB), (12, GB)] {
        assert_eq!(create(&c, shift, size, 1).0, Err(Errno::EINVAL));
    }
    assert_ne!(process.leaked_pages(), 0);
    assert_eq!(create(&c, 12, 2 * GB, 1), (Ok(0), 0));
    assert_eq!(create(&c, 12, 2 * GB, 1).0, Err(Errno::EPERM), "not in slot 1");
    end(&kernel, &process, c);
}

#[test]
fn older_machines_have_one_table_for_each_group() {
    each(|profile, age| {
        for platform in [Platform::P5ioc2, Platform::Ioda1] {
            if profile.runs_on(platform).is_err() {
                continue;
            }
            let kernel = MockKernel::builder(2).profile(*profile).platform(platform).build();
            let process = kernel.process();
            let c = container(&process, 1, 1, V1);
            assert_eq!(c.open_group(GroupId(0)), Ok(0));
            assert_eq!(c.set_container(GroupId(0)), Err(Errno::EBUSY));
            let (start, size) = platform.default_window(1);
            assert_eq!(c.enable(), Ok(0));
            let ahead = u64::from(size) / PS;
            assert_eq!(locked(&process), ahead, "{profile}: the table was there before");
            let at = u64::from(start) + B;
            assert_eq!(map(&c, at, P, 4096, RW), Ok(0));
            // By now it is a table like any other to the newest.
            let table = if age >= K6_4 { 2 * 8 * u64::from(size) / 4096 / PS } else { 0 };
            assert_eq!(locked(&process), ahead + table);
            assert_eq!(reaches(&kernel, 1, at), Ok(P));
            assert!(reaches(&kernel, 0, at).is_err());
            end(&kernel, &process, c);
        }
    });
}
