// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Error handling on the software PHB: one PE's freeze is its own affair, and each member of a
//! container gets an answer of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{G, G0, G1, G2, M, Rig, SECOND, Stop, mapped};
use tce_engine::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::linux::mock_kernel::{
    GroupState, Leftovers, MockKernel, MockKernelBuilder, Process,
};
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::backend::mock::{Access, Fault, MockBuilder, MockEvent};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::eeh::{EehFunction, EehInjection, EehOp, EehState};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{AttachError, BackendError, EehError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const MEMORY: Uaddr = Uaddr(0x7000_0000_0000);
const PAGE: u64 = 64 << 10;
const P0: PeNumber = PeNumber(0);
const P1: PeNumber = PeNumber(1);
const P2: PeNumber = PeNumber(2);
/// Where nothing is ever mapped.
const NOWHERE: Ioba = Ioba(1 << 30);

/// A container of these groups with a window at 0 whose first page is mapped for reading.
fn windowed(rig: &Rig, groups: &[GroupId]) -> Container {
    let container = rig.container(groups);
    container.register(MEMORY, 16 * M).unwrap();
    container.create_window(WindowSpec::new(2 * G, PageShift::K64)).unwrap();
    map(&container, 0).unwrap();
    container
}

fn map(container: &Container, page: u64) -> Result<(), tce_engine::MapError> {
    let (at, from) = (Ioba(page * PAGE), Uaddr(MEMORY.0 + page * PAGE));
    container.map(at, from, PAGE, Perm::READ, Mode::Refuse).map(drop)
}

/// What the PE's device reads at a page: an offset in the memory.
fn read(rig: &Rig, pe: PeNumber, page: u64) -> Result<u64, Fault> {
    let done = rig.mock.dma(pe, Ioba(page * PAGE), Access::Read)?;
    Ok(rig.mock.owner(done.at).expect("it is pinned").1)
}

fn frozen(pe: PeNumber) -> Fault {
    Fault::Frozen { pe, state: EehState::Stopped }
}

fn states(container: &Container) -> Vec<EehState> {
    let states = container.eeh_states().unwrap();
    assert_eq!(states.iter().map(|(group, _)| *group).collect::<Vec<_>>(), container.groups());
    states.into_iter().map(|(_, state)| state.unwrap()).collect()
}

fn done(container: &Container, op: EehOp) {
    let results = container.eeh(op).unwrap();
    assert_eq!(results.len(), container.groups().len());
    assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
}

use EehState::{DmaStopped, InReset, Normal, Stopped};

#[test]
fn i17_a_bad_dma_freezes_its_pe_and_each_member_tells_its_own_state() {
    let rig = Rig::new(MockBuilder::new(2).record(true));
    let c = windowed(&rig, &[G0, G1]);
    rig.forget_events();
    assert_eq!(states(&c), [Normal, Normal]);
    let bad = [(NOWHERE, Access::Read), (Ioba(0), Access::Write), (Ioba(1 << 62), Access::Read)];
    for (at, access) in bad {
        let fault = rig.mock.dma(P1, at, access).unwrap_err();
        assert!(!matches!(fault, Fault::Frozen { .. }), "{fault}");
        assert_eq!(states(&c), [Normal, Stopped], "{fault}");
        assert_eq!(read(&rig, P1, 0), Err(frozen(P1)));
        assert_eq!(read(&rig, P0, 0), Ok(0));
        // A look from outside still finds it, and freezes nobody.
        assert_eq!(rig.mock.probe(P1, Ioba(0)), rig.mock.probe(P0, Ioba(0)));
        assert!(rig.mock.probe(P0, NOWHERE).is_err());
        assert_eq!(states(&c), [Normal, Stopped]);
        c.eeh_of(G1, EehOp::ResetHot).unwrap();
        assert_eq!(states(&c), [Normal, InReset]);
        c.eeh_of(G1, EehOp::ResetDeactivate).unwrap();
        assert_eq!(read(&rig, P1, 0), Ok(0), "windows and mappings outlive a reset");
    }
    assert_eq!(rig.mock.take_events(), [MockEvent::Freeze(P1); 3]);
}

#[test]
fn g8_what_is_done_to_one_pe_is_not_done_to_others() {
    let rig = Rig::new(MockBuilder::new(3));
    let c = windowed(&rig, &[G0, G1, G2]);
    for pe in [P0, P1, P2] {
        rig.mock.mmio_store(pe, 100 + u64::from(pe.0));
        rig.mock.freeze(pe);
    }
    let steps = [
        (EehOp::UnfreezeIo, DmaStopped),
        (EehOp::UnfreezeDma, Normal),
        (EehOp::ResetFundamental, InReset),
        (EehOp::Configure, InReset),
        (EehOp::ResetDeactivate, Normal),
        (EehOp::Enable, Normal),
        (EehOp::Disable, Normal),
    ];
    for (op, state) in steps {
        c.eeh_of(G1, op).unwrap();
        assert_eq!(states(&c), [Stopped, state, Stopped], "{op}");
        assert_eq!(read(&rig, P1, 0).is_ok(), state == Normal, "{op}");
        for pe in [P0, P2] {
            assert_eq!((rig.mock.mmio_load(pe), read(&rig, pe, 0)), (u64::MAX, Err(frozen(pe))));
        }
    }
    // Loads are all-ones and stores are dropped meanwhile; the reset has emptied the one's register.
    rig.mock.mmio_store(P0, 1);
    done(&c, EehOp::UnfreezeIo);
    done(&c, EehOp::UnfreezeDma);
    assert_eq!(states(&c), [Normal; 3]);
    assert_eq!([P0, P1, P2].map(|pe| rig.mock.mmio_load(pe)), [100, 0, 102]);
}

#[test]
fn g8_the_others_map_and_do_dma_while_one_is_frozen_and_reset() {
    let rig = Arc::new(Rig::new(MockBuilder::new(3)));
    let c = Arc::new(windowed(&rig, &[G0, G1, G2]));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for n in 0..2u64 {
            let (rig, c, stop) = (&rig, &c, &stop);
            scope.spawn(move || {
                let mut mapper = c.mapper();
                let mut turn = 0;
                while turn < 200 || !stop.load(Ordering::Relaxed) {
                    let page = 1 + n * 64 + turn % 64;
                    let (at, from) = (Ioba(page * PAGE), Uaddr(MEMORY.0 + page * PAGE));
                    mapper.map(at, from, PAGE, Perm::READ, Mode::Refuse).unwrap();
                    assert_eq!(read(rig, P0, page), Ok(page * PAGE));
                    assert_eq!(read(rig, P2, page), Ok(page * PAGE));
                    // The frozen one's window has it too, for when it works again.
                    assert!(rig.mock.probe(P1, at).is_ok());
                    mapper.unmap(at, PAGE).unwrap();
                    assert!(rig.mock.probe(P1, at).is_err());
                    turn += 1;
                }
            });
        }
        for turn in 0..200 {
            rig.mock.freeze(P1);
            assert_eq!(read(&rig, P1, 0), Err(frozen(P1)));
            if turn % 2 == 0 {
                c.eeh_of(G1, EehOp::ResetHot).unwrap();
                c.eeh_of(G1, EehOp::ResetDeactivate).unwrap();
            } else {
                c.eeh_of(G1, EehOp::UnfreezeIo).unwrap();
                c.eeh_of(G1, EehOp::UnfreezeDma).unwrap();
            }
            assert_eq!(read(&rig, P1, 0), Ok(0));
        }
    });
    assert_eq!(states(&c), [Normal; 3]);
    assert_eq!(mapped(&c, MEMORY), 1);
}

#[test]
fn g8_a_frozen_member_stops_no_change_of_the_structure() {
    let rig = Rig::new(MockBuilder::new(3).record(true));
    let c = windowed(&rig, &[G0, G1]);
    rig.mock.freeze(P1);
    rig.forget_events();
    // All of its windows follow, and it is killed like others.
    c.attach(G2).unwrap();
    let second = c.create_window(WindowSpec::new(4 * G, PageShift::M16)).unwrap();
    assert_eq!(second.start, SECOND);
    map(&c, 1).unwrap();
    assert_eq!(c.unmap(Ioba(0), PAGE).unwrap().kills.asked, 3);
    assert!(rig.mock.probe(P1, Ioba(0)).is_err(), "its entries went with the others'");
    assert!(rig.mock.probe(P1, Ioba(PAGE)).is_ok());
    c.remove_window(second.start, Removal::IfUnmapped).unwrap();
    let events = rig.mock.take_events();
    let kills = |pe| {
        let of = |e: &&MockEvent| matches!(e, MockEvent::Kill(p, _) if *p == pe);
        events.iter().filter(of).count()
    };
    assert_eq!(kills(P1), kills(P0));
    c.detach(G0).unwrap();
    assert_eq!(states(&c), [Stopped, Normal]);
    c.detach(G1).unwrap();
    assert_eq!(read(&rig, P2, 1), Ok(PAGE));
    // It is as frozen in its next container.
    let d = windowed(&rig, &[G1]);
    assert_eq!((states(&d), read(&rig, P1, 0)), (vec![Stopped], Err(frozen(P1))));
    done(&d, EehOp::ResetDeactivate);
    assert_eq!(read(&rig, P1, 0), Ok(0));
    rig.mock.freeze(P1);
    rig.mock.freeze(P2);
    c.close();
    d.close();
    rig.assert_empty();
}

#[test]
fn g8_a_late_joiner_may_be_frozen() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = windowed(&rig, &[G0]);
    rig.mock.freeze(P1);
    c.attach(G1).unwrap();
    assert_eq!(states(&c), [Normal, Stopped]);
    assert_eq!((read(&rig, P0, 0), read(&rig, P1, 0)), (Ok(0), Err(frozen(P1))));
    map(&c, 1).unwrap();
    assert_eq!(read(&rig, P0, 1), Ok(PAGE));
    c.eeh_of(G1, EehOp::ResetDeactivate).unwrap();
    assert_eq!(read(&rig, P1, 1), Ok(PAGE), "what was mapped meanwhile is there");
}

#[test]
fn g8_a_fence_freezes_the_pes_of_its_bridge() {
    let rig = Rig::new(MockBuilder::new(5).phbs(2));
    let all: Vec<_> = (0..5).map(GroupId).collect();
    let c = windowed(&rig, &all);
    let of: Vec<_> = (0..5).map(|pe| rig.mock.phb_of(PeNumber(pe))).collect();
    assert_eq!(of, [0, 1, 0, 1, 0], "dealt");
    rig.mock.fence_phb(1);
    assert_eq!(states(&c), [Normal, Stopped, Normal, Stopped, Normal]);
    map(&c, 1).unwrap();
    for pe in 0..5 {
        let there = read(&rig, PeNumber(pe), 1);
        assert_eq!(there.is_ok(), pe % 2 == 0, "{there:?}");
    }
    // Nothing is to be had of a PE behind a fence, and all others get what they ask for.
    for op in [EehOp::UnfreezeIo, EehOp::UnfreezeDma, EehOp::ResetHot, EehOp::ResetDeactivate] {
        let results = c.eeh(op).unwrap();
        let groups: Vec<_> = results.iter().map(|(group, _)| *group).collect();
        assert_eq!(groups, all, "one for each, in order");
        for (group, result) in results {
            match result {
                Ok(()) => assert_eq!(group.0 % 2, 0),
                Err(e) => {
                    assert_eq!(group.0 % 2, 1, "{e}");
                    assert!(e.to_string().contains("PHB 1 is fenced; recover it"), "{e}");
                }
            }
        }
        assert_eq!(states(&c)[1], Stopped, "{op}");
    }
    rig.mock.recover_phb(1);
    assert_eq!(states(&c), [Normal, Stopped, Normal, Stopped, Normal], "each for itself");
    done(&c, EehOp::ResetHot);
    done(&c, EehOp::ResetDeactivate);
    assert!((0..5).all(|pe| read(&rig, PeNumber(pe), 1) == Ok(PAGE)), "with all its windows");
}

#[test]
fn s13_there_is_a_result_for_each_member_whatever_fails() {
    let rig = Rig::new(MockBuilder::new(3));
    let c = windowed(&rig, &[G2, G0, G1]);
    for bad in [G0, G1, G2] {
        [P0, P1, P2].into_iter().for_each(|pe| rig.mock.freeze(pe));
        rig.faulty.fail_eeh(Some(bad));
        let results = c.eeh(EehOp::ResetDeactivate).unwrap();
        let groups: Vec<_> = results.iter().map(|(group, _)| *group).collect();
        assert_eq!(groups, [G2, G0, G1], "in order of joining");
        for (group, result) in &results {
            match result {
                Ok(()) => assert_ne!(*group, bad),
                Err(BackendError::Eeh { group: failed, request, .. }) => {
                    assert_eq!((*failed, *group, *request), (bad, bad, "deactivate the reset"));
                }
                Err(other) => panic!("{other}"),
            }
        }
        // Of the states, too, each is told that can be.
        for (group, state) in c.eeh_states().unwrap() {
            assert_eq!(state.ok(), (group != bad).then_some(Normal));
        }
        rig.faulty.fail_eeh(None);
        let is = |group| if group == bad { Stopped } else { Normal };
        assert_eq!(states(&c), [G2, G0, G1].map(is));
    }
}

#[test]
fn s13_no_group_is_an_error_and_so_is_a_stranger() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = rig.engine.container();
    assert_eq!(c.eeh(EehOp::Enable), Err(EehError::NoGroup));
    assert_eq!(c.eeh_of(G0, EehOp::Enable), Err(EehError::NoGroup));
    assert_eq!(c.eeh_states(), Err(EehError::NoGroup));
    c.attach(G0).unwrap();
    assert_eq!(c.eeh_of(G1, EehOp::ResetHot), Err(EehError::NotMember(G1)));
    assert_eq!(rig.mock.mmio_load(P1), 0, "it was not reset");
    c.detach(G0).unwrap();
    assert_eq!(c.eeh(EehOp::Enable), Err(EehError::NoGroup));
    assert_eq!(c.detach(G0), Err(AttachError::NotMember(G0)));
}

#[test]
fn g8_an_injected_error_waits_for_its_access() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = windowed(&rig, &[G0, G1]);
    map(&c, 1).unwrap();
    let function = EehFunction::DMA_READ;
    let error = EehInjection { function, address: PAGE, mask: !(PAGE - 1), wide: false };
    c.eeh_of(G1, EehOp::Inject(error)).unwrap();
    assert_eq!((read(&rig, P1, 0), states(&c)), (Ok(0), vec![Normal, Normal]));
    assert_eq!(read(&rig, P0, 1), Ok(PAGE), "it was injected into the other");
    assert_eq!(read(&rig, P1, 1), Err(frozen(P1)));
    assert_eq!(states(&c), [Normal, Stopped]);
    c.eeh_of(G1, EehOp::ResetDeactivate).unwrap();
    assert_eq!(read(&rig, P1, 1), Ok(PAGE), "once");
    // Into all at the same time; a write strikes, not a read.
    done(&c, EehOp::Inject(EehInjection::anywhere(EehFunction::DMA_WRITE)));
    assert_eq!((read(&rig, P0, 0), read(&rig, P1, 0)), (Ok(0), Ok(0)));
    assert_eq!(rig.mock.dma(P0, Ioba(0), Access::Write), Err(frozen(P0)));
    assert_eq!(states(&c), [Stopped, Normal]);
    // A load of the device's register has an error of its own.
    c.eeh_of(G1, EehOp::Inject(EehInjection::anywhere(EehFunction::LOAD))).unwrap();
    assert_eq!((rig.mock.mmio_load(P1), states(&c)[1]), (u64::MAX, Stopped));
}

#[test]
fn g8_no_freeze_is_what_qemu_does() {
    let rig = Rig::new(MockBuilder::new(2).no_freeze(true));
    let c = windowed(&rig, &[G0, G1]);
    for _ in 0..3 {
        assert!(matches!(read(&rig, P1, 9), Err(Fault::Empty { .. } | Fault::NoLevel { .. })));
        assert_eq!((states(&c), read(&rig, P1, 0)), (vec![Normal, Normal], Ok(0)));
    }
    // What freezes for another reason does.
    rig.mock.freeze(P1);
    assert_eq!(read(&rig, P1, 0), Err(frozen(P1)));
    c.eeh_of(G1, EehOp::Inject(EehInjection::anywhere(EehFunction::DMA_READ))).unwrap();
    c.eeh_of(G1, EehOp::ResetDeactivate).unwrap();
    assert_eq!(read(&rig, P1, 0), Err(frozen(P1)));
}

/// A simulated kernel, a process of it, and the engine. Nothing is left when it goes.
struct OnKernel {
    kernel: Arc<MockKernel>,
    process: Arc<Process>,
    engine: Engine,
}

impl OnKernel {
    fn new(builder: MockKernelBuilder) -> Self {
        let kernel = builder.build();
        let process = kernel.process();
        let linux = Linux::new(process.clone(), LinuxOptions::default());
        let options = EngineOptions { detach: DetachPolicy::Replay, ..EngineOptions::default() };
        Self { engine: Engine::new(linux, options), kernel, process }
    }

    fn states(&self) -> [GroupState; 2] {
        [G0, G1].map(|group| self.kernel.group_state(group).unwrap())
    }
}

impl Drop for OnKernel {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!((self.engine.ledger().pages(), self.process.books().locked), (0, 0));
            assert_eq!(self.kernel.leftovers(), Leftovers::default());
            assert_eq!(self.kernel.damage(), []);
        }
    }
}

#[test]
fn g8_a_kernels_only_group_is_handled() {
    let rig = OnKernel::new(MockKernel::builder(2));
    let c = rig.engine.container();
    assert_eq!(c.eeh(EehOp::Enable), Err(EehError::NoGroup));
    c.attach(G1).unwrap();
    rig.kernel.set_group_state(G1, GroupState::Stopped);
    let steps = [
        (EehOp::Enable, Stopped),
        (EehOp::UnfreezeIo, DmaStopped),
        (EehOp::UnfreezeDma, Normal),
        (EehOp::ResetFundamental, InReset),
        (EehOp::Configure, InReset),
        (EehOp::ResetDeactivate, Normal),
        (EehOp::ResetHot, InReset),
        (EehOp::ResetDeactivate, Normal),
        (EehOp::Inject(EehInjection::anywhere(EehFunction::DMA_WRITE)), Normal),
        (EehOp::Disable, Normal),
    ];
    for (n, (op, state)) in steps.into_iter().enumerate() {
        if n % 2 == 0 {
            assert_eq!(c.eeh(op), Ok(vec![(G1, Ok(()))]), "{op}");
        } else {
            assert_eq!(c.eeh_of(G1, op), Ok(()), "{op}");
        }
        assert_eq!((c.eeh_states(), rig.states()[0]), (Ok(vec![(G1, Ok(state))]), WELL), "{op}");
    }
    assert_eq!(c.eeh_of(G0, EehOp::ResetHot), Err(EehError::NotMember(G0)));
}

const WELL: GroupState = GroupState::Normal;

#[test]
fn s13_a_kernel_is_not_asked_about_one_of_several() {
    let rig = OnKernel::new(MockKernel::builder(2));
    let c = rig.engine.container();
    c.attach(G0).unwrap();
    c.attach(G1).unwrap();
    rig.kernel.set_group_state(G1, GroupState::Stopped);
    let inject = EehOp::Inject(EehInjection::anywhere(EehFunction::LOAD));
    for op in [
        EehOp::Enable,
        EehOp::Disable,
        EehOp::UnfreezeIo,
        EehOp::UnfreezeDma,
        EehOp::ResetDeactivate,
        EehOp::ResetHot,
        EehOp::ResetFundamental,
        EehOp::Configure,
        inject,
    ] {
        let refused = EehError::Shared { op, members: 2 };
        let text = refused.to_string();
        assert!(text.contains("2 groups") && text.contains(op.name()), "{text}");
        assert!(text.contains("into a container of its own"), "{text}");
        assert_eq!(c.eeh(op), Err(refused.clone()));
        assert_eq!(c.eeh_of(G1, op), Err(refused));
        assert_eq!(rig.states(), [WELL, GroupState::Stopped], "{op}");
    }
    assert_eq!(c.eeh_states(), Err(EehError::Ambiguous { members: 2 }));
    // Alone again, it can be helped.
    c.detach(G0).unwrap();
    c.eeh_of(G1, EehOp::ResetDeactivate).unwrap();
    assert_eq!(rig.states(), [WELL; 2]);
}

#[test]
fn s13_a_kernel_without_eeh_says_so() {
    let rig = OnKernel::new(MockKernel::builder(2).group(G0, |group| group.eeh = false));
    let c = rig.engine.container();
    c.attach(G0).unwrap();
    for result in [c.eeh(EehOp::ResetHot).unwrap(), c.eeh(EehOp::Enable).unwrap()] {
        let [(G0, Err(BackendError::Kernel { request, errno, .. }))] = &result[..] else {
            panic!("{result:?}")
        };
        assert_eq!(*errno, Some(19), "ENODEV");
        assert!(request.starts_with("error handling: "), "{request}");
    }
    assert!(matches!(c.eeh_states().unwrap()[..], [(G0, Err(_))]));
    assert!(matches!(c.eeh_of(G0, EehOp::Enable), Err(EehError::Backend(_))));
}
