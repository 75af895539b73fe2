// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: our own options, and those that `cargo test` hands to every test program.

use std::path::PathBuf;

use tce_engine::addr::PageShift;
use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::platform::Platform;

use crate::case::{Case, Column};
use crate::other::{HEIR, VICTIM};

/// How this program calls itself to run one column of one case.
pub(crate) const CHILD: &str = "--child";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Backend {
    #[default]
    MockKernel,
    Vfio,
}

#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) backend: Backend,
    /// `None`: both.
    pub(crate) column: Option<Column>,
    /// Of the simulated kernel.
    pub(crate) host_page: Option<PageShift>,
    pub(crate) profile: Option<Profile>,
    pub(crate) platform: Option<Platform>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) list: bool,
    /// Lists as the test harness of Rust does.
    pub(crate) terse: bool,
    pub(crate) help: bool,
    pub(crate) ids: Vec<String>,
    pub(crate) role: Role,
}

/// Which of its processes this is.
#[derive(Debug, Default)]
pub(crate) enum Role {
    #[default]
    Parent,
    Child(String, Column),
    Heir(Column),
    Victim(Column),
}

pub(crate) const USAGE: &str = "\
conformance [OPTION...] [ID...]

Asks a kernel's sPAPR TCE containers, and the engine over the same kernel, and compares the answers.
ID is a case such as F12, or the letter of a group of cases; without one, all run.

  --backend mock-kernel|vfio  a simulated kernel (default), or the one of this machine
  --host-page 4K|64K          of the simulated kernel (64K)
  --profile NAME              the simulated kernel: k4_2, k4_9, k4_12, k5_0, k6_4, k6_11 or pseries
                              (k6_11, then the letters D to I on each of the others)
  --platform NAME             its host bridges: phb3 (usual), phb4, phb5, npu2 or pseries
  --column raw|engine         one column only: raw requests, or the engine
  --json FILE                 all steps as JSON
  --list                      the cases, without running any
";

/// Options of Rust's test harness that mean nothing here.
const IGNORED: [&str; 13] = [
    "--nocapture",
    "--no-capture",
    "--show-output",
    "--quiet",
    "-q",
    "--exact",
    "--include-ignored",
    "--ignored",
    "--test",
    "--bench",
    "--report-time",
    "--ensure-time",
    "--force-run-in-process",
];

/// The same, with a value.
const IGNORED_WITH_VALUE: [&str; 6] =
    ["--test-threads", "--skip", "--color", "--logfile", "--shuffle-seed", "-Z"];

fn column(name: &str) -> Result<Column, String> {
    let found = Column::ALL.into_iter().find(|column| column.name() == name);
    found.ok_or_else(|| format!("--column is raw or engine, not {name}"))
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            let (name, mut inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    (name.to_owned(), Some(value.to_owned()))
                }
                _ => (arg.clone(), None),
            };
            let mut value =
                || inline.take().or_else(|| args.next()).ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--backend" => {
                    options.backend = match value()?.as_str() {
                        "mock-kernel" => Backend::MockKernel,
                        "vfio" => Backend::Vfio,
                        other => {
                            return Err(format!("--backend is mock-kernel or vfio, not {other}"));
                        }
                    }
                }
                "--column" => options.column = Some(column(&value()?)?),
                "--host-page" => {
                    options.host_page = Some(match value()?.to_uppercase().as_str() {
                        "4K" => PageShift::K4,
                        "64K" => PageShift::K64,
                        other => return Err(format!("--host-page is 4K or 64K, not {other}")),
                    });
                }
                "--profile" => {
                    options.profile = Some(value()?.parse().map_err(|e| format!("{e}"))?);
                }
                "--platform" => {
                    let platform: Platform = value()?.parse().map_err(|e| format!("{e}"))?;
                    if platform.dynamic_windows() == 0 {
                        return Err(format!(
                            "the cases need groups with dynamic windows; {platform} has none"
                        ));
                    }
                    options.platform = Some(platform);
                }
                "--json" => options.json = Some(value()?.into()),
                "--list" => options.list = true,
                "--format" => options.terse = value()? == "terse",
                "-h" | "--help" => options.help = true,
                CHILD => options.role = Role::Child(value()?, column(&value()?)?),
                HEIR => options.role = Role::Heir(column(&value()?)?),
                VICTIM => options.role = Role::Victim(column(&value()?)?),
                name if IGNORED.contains(&name) => {}
                name if IGNORED_WITH_VALUE.contains(&name) => drop(value()?),
                name if name.starts_with('-') => return Err(format!("unknown option {name}")),
                _ => options.ids.push(arg),
            }
        }
        Ok(options)
    }

    /// Whether the case was asked for. A word that is neither an id nor a letter is a filter of
    /// `cargo test`, meant for others.
    pub(crate) fn wants(&self, case: &Case) -> bool {
        let named = |id: &String| {
            let letter = case.id.trim_end_matches(|c: char| c.is_ascii_digit());
            id.eq_ignore_ascii_case(case.id) || id.eq_ignore_ascii_case(letter)
        };
        self.ids.is_empty() || self.ids.iter().any(named)
    }
}
