// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The traps: for each, a short story that a user lives through. What is wrong at its end is counted
//! by [`Scene`]; no story says what should come out.

use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes};
use tce_engine::backend::linux::Version;
use tce_engine::backend::linux::mock_kernel::{
    Event, GroupState, Injection, MockKernelBuilder, Vma,
};

use super::scene::{PAGE, Scene, memory, page_at};
use super::user::{Answer, Shape};

const G0: GroupId = GroupId(0);
const G1: GroupId = GroupId(1);
/// Entries of a block of the smallest size, with host pages of 64K.
const LEAF: u64 = 8192;

/// One trap.
pub(super) struct Trap {
    /// Short name, for `--trap` and results.
    pub(super) id: &'static str,
    /// What a user falls into.
    pub(super) what: &'static str,
    pub(super) version: Version,
    pub(super) machine: fn(MockKernelBuilder) -> MockKernelBuilder,
    pub(super) story: fn(&mut Scene) -> Answer,
    /// Why the engine cannot prevent it, where it cannot.
    pub(super) helpless: Option<&'static str>,
}

const fn trap(id: &'static str, what: &'static str, story: fn(&mut Scene) -> Answer) -> Trap {
    Trap { id, what, version: Version::V2, machine: |builder| builder, story, helpless: None }
}

impl Trap {
    const fn machine(self, machine: fn(MockKernelBuilder) -> MockKernelBuilder) -> Self {
        Self { machine, ..self }
    }

    const fn v1(self) -> Self {
        Self { version: Version::V1, ..self }
    }

    const fn helpless(self, why: &'static str) -> Self {
        Self { helpless: Some(why), ..self }
    }
}

/// All of them.
pub(super) const TRAPS: &[Trap] = &[
    trap("failed-create", "a window that cannot be made keeps its charge", failed_create),
    trap("retry-create", "trying more levels until it works leaks each time", retry_create),
    trap("default-window", "the first window does not begin where it should", default_window),
    trap("remove-inside", "any address inside a window removes it", remove_inside),
    trap("firmware-code", "firmware's refusal reads as another error", firmware_code),
    trap("newest-group", "the page sizes are those of the newest group only", newest_group)
        .machine(|builder| {
            builder
                .group(G0, |g| g.page_sizes = PageSizes::of(&[PageShift::K4, PageShift::K64]))
                .group(G1, |g| g.page_sizes = PageSizes::of(&[PageShift::K64, PageShift::M16]))
        }),
    trap("late-joiner", "a group that joins later has none of the windows", late_joiner),
    trap("detach", "a group that leaves empties the windows of the others", detach),
    trap("attach-twice", "a group is added twice by mistake, then leaves", attach_twice),
    trap("other-segment", "a group whose window begins elsewhere joins", other_segment)
        .machine(|builder| builder.group(G1, |g| g.dma32_start = 1 << 28)),
    trap("hole", "memory with a hole counts as registered", hole),
    trap("unregister-mapped", "memory is given back while devices still use it", unregister_mapped),
    trap("register-twice", "memory registered twice stays after it was given back", register_twice),
    trap("closed", "closing the container leaves memory pinned", closed),
    trap("misaligned", "a crooked bus address is answered by 1", misaligned),
    trap("map-past-end", "a map goes on behind the end of the window", map_past_end),
    trap("unmap-past-end", "so does an unmap", unmap_past_end),
    trap("silent-replace", "a map over somebody else's succeeds", silent_replace),
    trap("failed-replace", "a map that fails half way has removed what was there", failed_replace),
    trap(
        "no-memory-replace",
        "so has one for which there is no memory half way",
        no_memory_replace,
    ),
    trap("empty-map", "a map of no pages at bus address 0", empty_map),
    trap("no-level", "no memory for a level under bus address 0", no_level),
    trap("dying-region", "a map ends early, and says success", dying_region).helpless(
        "the kernel itself says success; only an unregister at the same time leads to it, and the \
         engine sends none while anything maps or is mapped",
    ),
    trap("frozen-peer", "of several groups' states only the first bad one is told", frozen_peer),
    trap("reset-all", "a reset of one group resets all of them", reset_all),
    trap("half-reset", "a reset that is refused has reset others before", half_reset)
        .machine(|builder| builder.group(G0, |g| g.eeh = false)),
    trap("v1-unpin", "pages are unpinned before their translations are killed", v1_unpin)
        .v1()
        .helpless("both happen inside one request of the kernel's; containers of version 2 do not"),
];

fn small() -> Shape {
    Shape { page: PageShift::K64, bytes: 1 << 30, levels: Some(1) }
}

/// A container with a window and so much memory.
fn windowed(s: &mut Scene, groups: &[GroupId], pages: u64) -> Result<(usize, Ioba), String> {
    let c = s.open(groups[0])?;
    groups[1..].iter().try_for_each(|group| s.attach(c, *group))?;
    let start = s.create(c, small())?;
    s.register(c, 0, pages)?;
    Ok((c, start))
}

/// After a story's request that may be refused, it goes on.
fn may<T>(_: Answer<T>) {}

fn failed_create(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    may(s.create(c, Shape { page: PageShift::K64, bytes: 1 << 20, levels: Some(3) }));
    Ok(())
}

fn retry_create(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    s.create(c, Shape { page: PageShift::K64, bytes: 256 << 30, levels: None })?;
    Ok(())
}

/// Nobody told the user to remove the default window first.
fn default_window(s: &mut Scene) -> Answer {
    let c = s.open_as_it_comes(G0)?;
    let start = s.create(c, small())?;
    s.misled_if(start != Ioba(0));
    Ok(())
}

fn remove_inside(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    s.map(c, start, 0, 4)?;
    may(s.remove(c, page_at(start, 1)));
    Ok(())
}

fn firmware_code(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    s.kernel.inject(Injection::SetWindow { group: G0, slot: 0, code: -1 });
    let answer = s.create(c, small());
    s.misled_if(!answer.is_err_and(|text| text.contains("firmware code -1")));
    Ok(())
}

fn newest_group(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    s.attach(c, G1)?;
    // All that both have.
    let offered = s.largest_page(c)?;
    s.misled_if(offered != PageShift::K64);
    Ok(())
}

fn late_joiner(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    s.map(c, start, 0, 4)?;
    s.attach(c, G1)
}

fn detach(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0, G1], 4)?;
    s.map(c, start, 0, 4)?;
    s.detach(c, G1)
}

fn attach_twice(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0, G1], 4)?;
    s.map(c, start, 0, 4)?;
    may(s.attach(c, G0));
    s.map(c, page_at(start, 8), 0, 4)
}

fn other_segment(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    s.map(c, start, 0, 4)?;
    may(s.attach(c, G1));
    Ok(())
}

fn hole(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    s.process.vma(memory(18), 2 * PAGE, Vma::HOLE);
    if s.register(c, 16, 4).is_ok() {
        let mapped = s.map(c, page_at(start, 1), 16, 2);
        s.misled_if(mapped.is_err());
    }
    Ok(())
}

fn unregister_mapped(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    s.map(c, start, 0, 4)?;
    may(s.unregister(c, 0, 4));
    Ok(())
}

fn register_twice(s: &mut Scene) -> Answer {
    let (c, _) = windowed(s, &[G0], 4)?;
    may(s.register(c, 0, 4));
    s.unregister(c, 0, 4)
}

fn closed(s: &mut Scene) -> Answer {
    windowed(s, &[G0], 4).map(drop)
}

fn misaligned(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    may(s.map(c, Ioba(start.0 + 4096), 0, 1));
    Ok(())
}

fn map_past_end(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    may(s.map(c, page_at(start, (1 << 30) / PAGE - 1), 0, 2));
    Ok(())
}

fn unmap_past_end(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    may(s.unmap(c, page_at(start, (1 << 30) / PAGE - 1), 2));
    Ok(())
}

fn silent_replace(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 8)?;
    s.map(c, start, 0, 4)?;
    may(s.map(c, page_at(start, 2), 4, 4));
    Ok(())
}

fn failed_replace(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 8)?;
    s.map(c, start, 0, 8)?;
    // The second half of what replaces it is not registered.
    may(s.replace(c, start, 4, 8));
    Ok(())
}

fn no_memory_replace(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    let start = s.create(c, Shape { levels: Some(2), bytes: 64 << 30, ..small() })?;
    s.register(c, 0, 16)?;
    // The last pages of one leaf, and a map over them that goes on into one that does not exist.
    let last = page_at(start, LEAF - 4);
    s.map(c, last, 0, 4)?;
    s.kernel.inject(Injection::Level { nth: 1 });
    may(s.replace(c, last, 8, 8));
    Ok(())
}

fn empty_map(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 4)?;
    may(s.map(c, start, 0, 0));
    Ok(())
}

fn no_level(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    let start = s.create(c, Shape { levels: Some(2), bytes: 64 << 30, ..small() })?;
    s.register(c, 0, 4)?;
    s.kernel.inject(Injection::Level { nth: 1 });
    may(s.map(c, start, 0, 1));
    Ok(())
}

fn dying_region(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0], 8)?;
    s.kernel.inject(Injection::RegionDying { nth: 3 });
    s.map(c, start, 0, 8)
}

fn frozen_peer(s: &mut Scene) -> Answer {
    let (c, _) = windowed(s, &[G0, G1], 4)?;
    s.kernel.set_group_state(G0, GroupState::Stopped);
    may(s.states(c, &[G0, G1]));
    Ok(())
}

fn reset_all(s: &mut Scene) -> Answer {
    let (c, start) = windowed(s, &[G0, G1], 4)?;
    s.map(c, start, 0, 4)?;
    s.kernel.set_group_state(G1, GroupState::DmaStopped);
    may(s.reset(c, G1));
    Ok(())
}

/// The newest group is asked first; the other has no error handling.
fn half_reset(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    s.attach(c, G1)?;
    may(s.reset(c, G0));
    Ok(())
}

fn v1_unpin(s: &mut Scene) -> Answer {
    let c = s.open(G0)?;
    let start = s.create(c, Shape { page: PageShift::K4, bytes: 2 << 30, levels: Some(1) })?;
    s.register(c, 0, 4)?;
    s.map(c, page_at(start, 1), 0, 4)?;
    s.events();
    s.unmap(c, page_at(start, 1), 4)?;
    let mut unpinned = 0;
    for event in s.events() {
        match event {
            Event::Unpin { bytes, .. } => unpinned += bytes / PAGE,
            Event::Kill { .. } | Event::KillAll { .. } => s.exposed(std::mem::take(&mut unpinned)),
            _ => {}
        }
    }
    Ok(())
}
