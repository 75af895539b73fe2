// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counts instructions one by one: the bench starts itself anew under `ptrace`, and steps through
//! what the child does between two breakpoints. Exact, whatever the machine does meanwhile, and it
//! sees what no counter of a virtual machine shows: which instructions lock the bus.

#![allow(unsafe_code)] // ptrace, and the breakpoints of its child

use std::arch::asm;
use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The child's command line: this, then the name of the work.
const CHILD: &str = "--counted-child";

/// What ran between the breakpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Instructions; a string instruction counts once, however often it repeats.
    pub(crate) instructions: u64,
    /// Those with a `lock` prefix, and exchanges with memory, which lock without one.
    pub(crate) locked: u64,
    /// Memory fences.
    pub(crate) fences: u64,
    /// System calls.
    pub(crate) syscalls: u64,
}

/// Runs `work` between the breakpoints. Outside a child of [`count`] it would end the process.
#[inline(never)]
pub(crate) fn between_breakpoints<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: a breakpoint changes nothing but the flow to the debugger, which `count` is.
    unsafe { asm!("int3", options(nomem, nostack)) };
    let out = work();
    black_box(&out);
    // SAFETY: as above.
    unsafe { asm!("int3", options(nomem, nostack)) };
    out
}

/// Has to be the first thing of `main`: in a child of [`count`], it does the work of that name and
/// does not return.
pub(crate) fn child(work: impl FnOnce(&str)) {
    let mut args = env::args().skip(1);
    if args.next().as_deref() == Some(CHILD) {
        work(&args.next().expect("the parent names the work"));
        std::process::exit(0);
    }
}

/// Counts what the work of that name does between its breakpoints.
///
/// # Errors
/// If the child cannot be started or traced, or ends before its second breakpoint.
pub(crate) fn count(name: &str) -> Result<Counts, String> {
    let exe = env::current_exe().map_err(|e| format!("this program cannot be found: {e}"))?;
    let mut command = Command::new(exe);
    command.args([CHILD, name]);
    // SAFETY: between fork and exec the closure only makes a system call, which is allowed there.
    let command = unsafe { command.pre_exec(trace_me) };
    let child = command.spawn().map_err(|e| format!("the traced child cannot be started: {e}"))?;
    let memory = File::open(format!("/proc/{}/mem", child.id()))
        .map_err(|e| format!("the traced child's memory cannot be read: {e}"))?;
    Tracee { child, memory }.run().map_err(|e| format!("{name}: {e}"))
}

fn trace_me() -> std::io::Result<()> {
    // SAFETY: the request takes no pointers.
    let done = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The traced child, and its memory.
struct Tracee {
    child: Child,
    memory: File,
}

/// What an instruction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Breakpoint,
    Locked,
    Fence,
    Syscall,
    Plain,
}

impl Tracee {
    fn pid(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    fn run(mut self) -> Result<Counts, String> {
        let counts = self.step_through();
        let _ = self.child.kill();
        let _ = self.child.wait();
        counts
    }

    fn step_through(&self) -> Result<Counts, String> {
        // The first stop is that of exec, the second the breakpoint.
        self.wait()?;
        self.go_on(libc::PTRACE_CONT)?;
        self.wait()?;
        let mut kinds = HashMap::new();
        let mut counts = Counts::default();
        let mut last = 0;
        loop {
            let at = self.instruction_pointer()?;
            let kind = match kinds.get(&at) {
                Some(kind) => *kind,
                None => *kinds.entry(at).or_insert(classify(self.code(at)?)),
            };
            // A string instruction stops after each turn.
            if at != last {
                match kind {
                    Kind::Breakpoint => return Ok(counts),
                    Kind::Locked => counts.locked += 1,
                    Kind::Fence => counts.fences += 1,
                    Kind::Syscall => counts.syscalls += 1,
                    Kind::Plain => {}
                }
                counts.instructions += 1;
            }
            last = at;
            self.go_on(libc::PTRACE_SINGLESTEP)?;
            self.wait()?;
        }
    }

    /// Waits until the child has stopped at a trap.
    fn wait(&self) -> Result<(), String> {
        let mut status = 0;
        // SAFETY: `status` is there to be written.
        let pid = unsafe { libc::waitpid(self.pid(), &raw mut status, 0) };
        if pid != self.pid() {
            return Err(format!("waiting: {}", std::io::Error::last_os_error()));
        }
        if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP {
            return Ok(());
        }
        Err(format!("ended or stopped with status {status:#x}, not at a breakpoint"))
    }

    fn go_on(&self, request: libc::c_uint) -> Result<(), String> {
        // SAFETY: these requests take no pointers; the signal 0 means none.
        let done = unsafe { libc::ptrace(request, self.pid(), 0, 0) };
        if done == 0 { Ok(()) } else { Err(refused("continuing")) }
    }

    fn instruction_pointer(&self) -> Result<u64, String> {
        // SAFETY: registers are plain numbers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: `registers` is what this request fills.
        let done = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.pid(), 0, &raw mut registers) };
        if done == 0 { Ok(registers.rip) } else { Err(refused("reading registers")) }
    }

    /// The first 16 bytes at `at`, which holds any instruction.
    fn code(&self, at: u64) -> Result<[u8; 16], String> {
        let mut code = [0; 16];
        // An instruction at the end of a mapping has nothing behind it: a short read is fine.
        match self.memory.read_at(&mut code, at) {
            Ok(1..) => Ok(code),
            Ok(0) => Err(format!("reading code: nothing at {at:#x}")),
            Err(e) => Err(format!("reading code at {at:#x}: {e}")),
        }
    }
}

fn refused(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

/// Looks at prefixes, opcode and, for exchanges, whether an operand is in memory.
fn classify(code: [u8; 16]) -> Kind {
    let is_prefix =
        |byte: u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = code.iter().take_while(|byte| is_prefix(**byte)).count();
    if code[..prefixes].contains(&0xf0) {
        return Kind::Locked;
    }
    let at = prefixes + usize::from(matches!(code.get(prefixes), Some(0x40..=0x4f)));
    let byte = |n: usize| code.get(at + n).copied().unwrap_or(0);
    let in_memory = |operands: u8| operands >> 6 != 3;
    match (byte(0), byte(1), byte(2)) {
        (0xcc, ..) => Kind::Breakpoint,
        (0x86 | 0x87, operands, _) if in_memory(operands) => Kind::Locked,
        (0x0f, 0x05, _) => Kind::Syscall,
        // lfence, mfence, sfence: register forms of group 15.
        (0x0f, 0xae, operands) if !in_memory(operands) && prefixes == 0 && operands >= 0xe8 => {
            Kind::Fence
        }
        _ => Kind::Plain,
    }
}

/// The classification decides a gate, so it is looked at each time: known encodings.
pub(crate) fn check_classification() {
    let cases: [(&[u8], Kind); 12] = [
        (&[0xcc], Kind::Breakpoint),
        (&[0xf0, 0x48, 0x0f, 0xb1, 0x0e], Kind::Locked), // lock cmpxchg [rsi], rcx
        (&[0xf0, 0x83, 0x0c, 0x24, 0x00], Kind::Locked), // lock or dword [rsp], 0
        (&[0x48, 0x87, 0x07], Kind::Locked),             // xchg [rdi], rax
        (&[0x86, 0x0e], Kind::Locked),                   // xchg [rsi], cl
        (&[0x48, 0x87, 0xc3], Kind::Plain),              // xchg rbx, rax
        (&[0x66, 0x87, 0x07], Kind::Locked),             // xchg [rdi], ax
        (&[0x0f, 0xae, 0xf0], Kind::Fence),              // mfence
        (&[0x0f, 0xae, 0xf8], Kind::Fence),              // sfence
        (&[0x0f, 0xae, 0x38], Kind::Plain),              // clflush [rax]
        (&[0x0f, 0x05], Kind::Syscall),
        (&[0x48, 0x89, 0x07], Kind::Plain), // mov [rdi], rax
    ];
    for (bytes, kind) in cases {
        let mut code = [0; 16];
        code[..bytes.len()].copy_from_slice(bytes);
        assert!(classify(code) == kind, "{bytes:x?} is classified wrongly");
    }
}
