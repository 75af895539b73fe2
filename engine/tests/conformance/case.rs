// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a case is, and how what was answered is written down.

use std::fmt::Debug;

use tce_engine::backend::linux::raw::Errno;
use tce_engine::container::{Attached, Detached, Receipt, WindowInfo};

use crate::ctx::Ctx;

/// Where a case may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// It would hurt a real kernel, or needs a fault that a real one does not have on demand.
    Mock,
    /// The simulated kernel has no such thing.
    Real,
    Both,
}

impl On {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mock => "mock",
            Self::Real => "real",
            Self::Both => "both",
        }
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// The kernel's container, by raw requests.
    Raw,
    /// The engine's public interface.
    Engine,
}

impl Column {
    pub(crate) const ALL: [Self; 2] = [Self::Raw, Self::Engine];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Engine => "engine",
        }
    }
}

/// Why a case ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// This machine cannot have it.
    Skip(String),
    /// Something that was taken for granted did not work.
    Broken(String),
}

pub(crate) type Done = Result<(), Stop>;
pub(crate) type Run = fn(&mut Ctx) -> Done;

/// One case: the same situation for the kernel and for the engine.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) on: On,
    pub(crate) raw: Option<Run>,
    pub(crate) engine: Option<Run>,
    /// If the kernel is wrong: what the engine does instead.
    pub(crate) instead: Option<&'static str>,
}

pub(crate) const fn case(id: &'static str, on: On, what: &'static str) -> Case {
    Case { id, what, on, raw: None, engine: None, instead: None }
}

impl Case {
    pub(crate) const fn raw(self, run: Run) -> Self {
        Self { raw: Some(run), ..self }
    }

    pub(crate) const fn engine(self, run: Run) -> Self {
        Self { engine: Some(run), ..self }
    }

    pub(crate) const fn instead(self, instead: &'static str) -> Self {
        Self { instead: Some(instead), ..self }
    }

    pub(crate) fn run(&self, column: Column) -> Option<Run> {
        match column {
            Column::Raw => self.raw,
            Column::Engine => self.engine,
        }
    }
}

/// What should be answered, and what was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) label: String,
    pub(crate) expected: String,
    pub(crate) answered: String,
}

impl Step {
    pub(crate) fn ok(&self) -> bool {
        self.expected == self.answered
    }
}

/// How a run of one column ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ended,
    Skipped(String),
    Broken(String),
}

/// One column of a case, run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

impl Outcome {
    pub(crate) fn failed(&self) -> bool {
        matches!(self.end, End::Broken(_)) || self.steps.iter().any(|step| !step.ok())
    }
}

/// An answer as a word or two.
pub(crate) trait Said {
    fn said(&self) -> String;
}

impl Said for i32 {
    fn said(&self) -> String {
        // A positive number is no success, and shall not look like one.
        if *self > 0 { format!("+{self}") } else { self.to_string() }
    }
}

impl Said for u32 {
    fn said(&self) -> String {
        self.to_string()
    }
}

impl Said for u64 {
    fn said(&self) -> String {
        if *self < 0x10000 { self.to_string() } else { format!("{self:#x}") }
    }
}

impl Said for bool {
    fn said(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Said for String {
    fn said(&self) -> String {
        self.clone()
    }
}

impl Said for () {
    fn said(&self) -> String {
        "ok".to_owned()
    }
}

macro_rules! just_ok {
    ($($name:ident)*) => {$(
        impl Said for $name {
            fn said(&self) -> String {
                "ok".to_owned()
            }
        }
    )*};
}

just_ok!(Receipt WindowInfo Attached Detached);

impl<T: Said, E: Debug> Said for Result<T, E> {
    fn said(&self) -> String {
        match self {
            Ok(good) => good.said(),
            Err(error) => variant(&format!("{error:?}")),
        }
    }
}

/// The name of an error's variant, with that of the error in it: `Backend.Pin`.
fn variant(debug: &str) -> String {
    let end = debug.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(debug.len());
    let (name, rest) = debug.split_at(end);
    match rest.strip_prefix('(') {
        Some(inner) if matches!(name, "Backend" | "Geometry" | "Unmap" | "Table") => {
            format!("{name}.{}", variant(inner))
        }
        _ if rest.starts_with(' ') && name == "errno" => debug.to_owned(),
        _ => name.to_owned(),
    }
}

/// For what is no part of the case and has to work.
pub(crate) trait Must<T> {
    fn must(self, what: &str) -> Result<T, Stop>;
}

impl<T, E: Debug> Must<T> for Result<T, E> {
    fn must(self, what: &str) -> Result<T, Stop> {
        self.map_err(|e| Stop::Broken(format!("{what}: {e:?}")))
    }
}

impl<T> Must<T> for Option<T> {
    fn must(self, what: &str) -> Result<T, Stop> {
        self.ok_or_else(|| Stop::Broken(what.to_owned()))
    }
}

/// An answer that has to be 0.
pub(crate) trait Zero {
    fn zero(self, what: &str) -> Done;
}

impl Zero for Result<i32, Errno> {
    fn zero(self, what: &str) -> Done {
        match self {
            Ok(0) => Ok(()),
            other => Err(Stop::Broken(format!("{what}: {}", other.said()))),
        }
    }
}
