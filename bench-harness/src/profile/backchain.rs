// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Samples of the stacks of all threads on powerpc64le, where the unwinders that can run in a signal handler
//! find nothing.
//!
//! The ABI (ELFv2) makes it simple: r1 always points to the back chain, a list of all frames that is whole at
//! every instruction, and each function saves its return address in its caller's frame. A timer of CPU time
//! sends SIGPROF; the handler walks that list into one of a fixed number of slots. It allocates nothing and
//! calls nothing. A thread empties the slots.
//!
//! The handler reads a frame only within the mapping that r1 points into, as the thread last read it from
//! `/proc/self/maps`. On a stack that is newer than that, only the place itself is sampled.

#![allow(unsafe_code)] // a signal handler, a timer, and the words of stacks

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The most addresses of a sample: where it is, the link register, and callers.
pub(super) const DEPTH: usize = 128;
/// Samples between two rounds of the thread. The timer ticks a thousand times a second of CPU time at most.
const SLOTS: usize = 1024;
const ROUND: Duration = Duration::from_millis(20);
/// Mappings that can be written; what is above that gets no callers.
const MAPPINGS: usize = 1024;

/// `struct ucontext` of Linux on this target: `uc_mcontext.gp_regs` stands 232 bytes in, as 64-bit words,
/// after flags and link (16), the signal stack (24), the mask with its reserve (128), the reserve, signal,
/// handler and old mask of `struct sigcontext` (56), and its pointer to the registers (8).
const REGISTERS: usize = 232;
const R1: usize = 1;
const NIP: usize = 32;
const LINK: usize = 36;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const FULL: u32 = 2;

struct Slot {
    state: AtomicU32,
    length: AtomicUsize,
    thread: AtomicU64,
    addresses: [AtomicU64; DEPTH],
}

static SLOT: [Slot; SLOTS] = [const {
    Slot {
        state: AtomicU32::new(FREE),
        length: AtomicUsize::new(0),
        thread: AtomicU64::new(0),
        addresses: [const { AtomicU64::new(0) }; DEPTH],
    }
}; SLOTS];
static NEXT: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);

/// First and end of each mapping. Of the two lists that one is read whose number VERSION is, modulo 2, while the
/// thread makes the other: however long that takes, handlers have one.
static MAPPING: [[[AtomicU64; 2]; MAPPINGS]; 2] =
    [const { [const { [const { AtomicU64::new(0) }; 2] }; MAPPINGS] }; 2];
static MAPPED: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static VERSION: AtomicUsize = AtomicUsize::new(0);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    /// How often each stack, by the thread's number.
    pub(super) counts: HashMap<(u64, Vec<u64>), isize>,
    /// The threads' names; not of one that has gone before its first sample was seen.
    pub(super) threads: HashMap<u64, String>,
    /// Samples that found no slot.
    pub(super) lost: u64,
}

/// Takes samples until it is finished or dropped.
pub(super) struct BackChain {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Stacks>>,
}

impl BackChain {
    /// Samples `frequency` times a second of CPU time.
    ///
    /// # Errors
    /// What the system says, or that there is one already.
    pub(super) fn start(frequency: i32) -> io::Result<Self> {
        if RUNNING.swap(true, Ordering::AcqRel) {
            return Err(io::Error::other("there is a running profiler in this process"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let started = read_mappings().and_then(|()| {
            let seen = Arc::clone(&stop);
            let builder = thread::Builder::new().name("profiler".into());
            builder.spawn(move || collect(&seen))
        });
        let thread = match started {
            Ok(thread) => Some(thread),
            Err(error) => {
                RUNNING.store(false, Ordering::Release);
                return Err(error);
            }
        };
        // From here on, dropping it ends the thread.
        let this = Self { stop, thread };
        catch()?;
        tick(1_000_000 / i64::from(frequency))?;
        Ok(this)
    }

    /// Ends it, and gives what was found.
    pub(super) fn finish(mut self) -> Stacks {
        self.end()
    }

    fn end(&mut self) -> Stacks {
        let Some(thread) = self.thread.take() else { return Stacks::default() };
        // It cannot fail: the same call with another number has worked, or nothing ticks.
        let _ = tick(0);
        self.stop.store(true, Ordering::Release);
        // The handler stays: a signal may be on its way, and would end the process without it.
        let mut stacks = thread.join().unwrap_or_default();
        stacks.lost = LOST.swap(0, Ordering::Relaxed);
        RUNNING.store(false, Ordering::Release);
        stacks
    }
}

impl Drop for BackChain {
    fn drop(&mut self) {
        self.end();
    }
}

/// How many samples were taken in this process.
#[cfg(test)]
pub(super) fn taken() -> usize {
    NEXT.load(Ordering::Relaxed)
}

fn catch() -> io::Result<()> {
    // SAFETY: all zero is a valid sigaction: default handler, no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` is initialised, and its handler does only what one may.
    let answer = unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends SIGPROF each so many microseconds of CPU time; with 0, no more.
fn tick(microseconds: i64) -> io::Result<()> {
    let each = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: each, it_value: each };
    // SAFETY: `timer` is initialised; the old one is not asked for.
    let answer = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handler(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let slot = &SLOT[nth % SLOTS];
    if slot.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let register = |number: usize| word(context.expose_provenance() + REGISTERS + 8 * number);
    slot.addresses[0].store(register(NIP), Ordering::Relaxed);
    slot.addresses[1].store(register(LINK), Ordering::Relaxed);
    let length = walk(register(R1) as usize, |nth, caller| {
        let place = slot.addresses.get(2 + nth);
        place.map(|place| place.store(caller, Ordering::Relaxed)).is_some()
    });
    slot.length.store(2 + length, Ordering::Relaxed);
    // SAFETY: it takes nothing, touches no memory, and sets no errno.
    let thread = unsafe { libc::gettid() };
    slot.thread.store(thread.unsigned_abs().into(), Ordering::Relaxed);
    slot.state.store(FULL, Ordering::Release);
}

/// Hands over return addresses from the youngest frame on, as long as they are taken, and tells how many were.
fn walk(r1: usize, mut take: impl FnMut(usize, u64) -> bool) -> usize {
    let Some(end) = mapping_end(r1) else { return 0 };
    let (mut frame, mut taken) = (r1, 0);
    // A frame's header has back chain, CR and LR: what is read of it.
    let whole = |frame: usize| frame.is_multiple_of(16) && end - frame >= 24;
    while whole(frame) {
        let next = word(frame) as usize;
        // The first function of a thread has no caller. Older frames lie above.
        if next <= frame || next >= end || !whole(next) {
            break;
        }
        let caller = word(next + 16);
        if caller == 0 || !take(taken, caller) {
            break;
        }
        taken += 1;
        frame = next;
    }
    taken
}

/// A word of the interrupted thread's own stack, or of its registers.
fn word(address: usize) -> u64 {
    let place = ptr::with_exposed_provenance::<u64>(address);
    // SAFETY: the address is within the registers that the kernel handed over, or within a mapping that holds
    // r1 of the thread that runs this, so that it lasts as long: see `walk`. It is a multiple of 8. Nobody
    // writes there meanwhile but another thread that was lent something on this stack, which a back chain and
    // a return address never are.
    unsafe { place.read_volatile() }
}

/// Where the mapping that an address is in ends; `None` if it is in none that is known.
fn mapping_end(address: usize) -> Option<usize> {
    let version = VERSION.load(Ordering::Acquire);
    let count = MAPPED[version % 2].load(Ordering::Relaxed).min(MAPPINGS);
    let found = MAPPING[version % 2][..count].iter().find_map(|[first, end]| {
        let (first, end) = (first.load(Ordering::Relaxed), end.load(Ordering::Relaxed));
        (first..end).contains(&(address as u64)).then_some(end as usize)
    });
    fence(Ordering::Acquire);
    // Had there been a new list meanwhile, the next would perhaps be made in this one's place.
    found.filter(|_| VERSION.load(Ordering::Relaxed) == version)
}

/// True if the stack that this is called on is known.
#[cfg(test)]
pub(super) fn knows_this_stack() -> bool {
    let here = 0_u8;
    mapping_end(ptr::from_ref(&here).addr()).is_some()
}

fn read_mappings() -> io::Result<()> {
    let text = std::fs::read_to_string("/proc/self/maps")?;
    let writable = text.lines().filter_map(|line| {
        let (range, rights) = line.split_once(' ')?;
        let (first, end) = range.split_once('-').filter(|_| rights.starts_with("rw"))?;
        Some((u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    let next = VERSION.load(Ordering::Relaxed).wrapping_add(1);
    // Who reads what is stored from here on, in the list of the version before, sees that it has passed.
    fence(Ordering::Release);
    let mut count = 0;
    for ((first, end), place) in writable.zip(&MAPPING[next % 2]) {
        place[0].store(first, Ordering::Relaxed);
        place[1].store(end, Ordering::Relaxed);
        count += 1;
    }
    MAPPED[next % 2].store(count, Ordering::Relaxed);
    VERSION.store(next, Ordering::Release);
    Ok(())
}

/// Empties the slots until it is told to stop, and once more.
fn collect(stop: &AtomicBool) -> Stacks {
    let mut stacks = Stacks::default();
    loop {
        let last = stop.load(Ordering::Acquire);
        for slot in &SLOT {
            if slot.state.load(Ordering::Acquire) != FULL {
                continue;
            }
            let length = slot.length.load(Ordering::Relaxed).min(DEPTH);
            let addresses = slot.addresses[..length].iter();
            let stack = addresses.map(|address| address.load(Ordering::Relaxed)).collect();
            let thread = slot.thread.load(Ordering::Relaxed);
            *stacks.counts.entry((thread, stack)).or_default() += 1;
            stacks.threads.entry(thread).or_insert_with(|| {
                let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
                name.unwrap_or_default().trim_end().to_owned()
            });
            slot.state.store(FREE, Ordering::Release);
        }
        if last {
            return stacks;
        }
        // If they cannot be read now, those of before serve.
        let _ = read_mappings();
        thread::sleep(ROUND);
    }
}
