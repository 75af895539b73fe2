// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command lines of `doctor`, `info` and `plan`, which look and change nothing, and of `completions`
//! and `man`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser};
use clap_complete::Shell;
use tce_engine::addr::DmaMask;

use super::config::RunConfig;
use super::values::{self, BackendChoice, Levels};
use super::{Cli, Invocation, Origins, RunArgs, workloads};
use crate::outfile::OutFile;
use crate::size::parse_size;

/// Masks that devices usually have.
const USUAL_MASKS: [u32; 4] = [32, 40, 48, 64];

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// IOMMU groups that are wanted [default: 1, or as many as --vfio-groups names]
    #[arg(long, value_name = "N", value_parser = values::count::<256>)]
    groups: Option<u32>,
    /// Look at these groups, as 0,1,2 [default: all that vfio-pci has]
    #[arg(long, value_name = "LIST", value_parser = values::group_list)]
    vfio_groups: Option<values::GroupList>,
    /// Containers of version 1
    #[arg(long)]
    vfio_v1: bool,
    /// Bytes of the window that is wanted; a power of two
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    window: u64,
    /// IOMMU page size: 4K, 64K, 2M, 16M, 256M or 1G
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = values::page_shift)]
    page_size: u8,
    /// Levels of the table: 1 to 5, or auto to let the engine pick
    #[arg(long, value_name = "N", default_value = "auto", value_parser = values::levels)]
    levels: Levels,
    /// Memory behind the window [default: the window, but at most 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    buffer: Option<u64>,
    #[command(flatten)]
    output: LookOutput,
}

/// Options of `info`.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    output: LookOutput,
}

/// Options of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Say how far devices with these DMA masks reach, as 32,64 [default: 32,40,48,64 and those of the
    /// devices, where they are known]
    #[arg(long, value_name = "BITS", value_delimiter = ',', help_heading = "What is mapped")]
    #[arg(value_parser = mask)]
    dma_mask: Vec<u32>,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write all pages, one for each command, into this directory [default: the first to standard output]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Where what was seen goes.
#[derive(Debug, Args)]
struct LookOutput {
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// Print nothing
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

fn mask(text: &str) -> Result<u32, String> {
    let bits = text.parse().ok().and_then(DmaMask::new);
    bits.map(DmaMask::bits)
        .ok_or_else(|| format!("'{text}' is no number of bits; accepted: 1 to 64, as 32,64"))
}

/// The settings of `doctor`.
#[derive(Debug, Clone, PartialEq)]
pub struct DoctorConfig {
    /// The run that is to be possible.
    pub run: RunConfig,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

impl TryFrom<DoctorArgs> for DoctorConfig {
    type Error = String;

    fn try_from(args: DoctorArgs) -> Result<Self, String> {
        let defaults = Cli::try_parse_from(["tce-bench"]).map_err(|e| e.to_string())?.run;
        let run = RunArgs {
            groups: args.groups,
            vfio_groups: args.vfio_groups,
            vfio_v1: args.vfio_v1,
            window: args.window,
            page_size: args.page_size,
            levels: args.levels,
            buffer: args.buffer,
            backend: BackendChoice::Vfio,
            ..defaults
        };
        let json = args.output.json.as_deref().map(OutFile::from);
        Ok(Self { run: run.try_into()?, json, quiet: args.output.quiet })
    }
}

/// The settings of `info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoConfig {
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

impl From<InfoArgs> for InfoConfig {
    fn from(args: InfoArgs) -> Self {
        let json = args.output.json.as_deref().map(OutFile::from);
        Self { json, quiet: args.output.quiet }
    }
}

/// The settings of `plan`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanConfig {
    /// The run that is planned.
    pub run: RunConfig,
    /// DMA masks in bits, sorted, each once.
    pub masks: Vec<u32>,
    /// True if they were asked for, so that no others matter.
    pub masks_given: bool,
    /// Where the run's settings come from.
    pub origins: Origins,
}

impl PlanConfig {
    fn new(run: RunConfig, mut masks: Vec<u32>, origins: Origins) -> Result<Self, String> {
        let files = [("--hlog", &run.output.hlog), ("--profile", &run.output.profile)];
        if let Some((name, _)) = files.into_iter().find(|(_, file)| file.is_some()) {
            return Err(format!("{name} of a plan, which measures nothing; accepted: --json"));
        }
        let masks_given = !masks.is_empty();
        if !masks_given {
            masks = USUAL_MASKS.to_vec();
        }
        masks.sort_unstable();
        masks.dedup();
        Ok(Self { run, masks, masks_given, origins })
    }
}

/// The plan of a run.
pub(super) fn plan(args: PlanArgs, arguments: &[OsString]) -> Result<Invocation, String> {
    let mixed = &args.run.mixed;
    let given = [("--workload", mixed.workload.is_some()), ("--sweep", !mixed.sweeps.is_empty())];
    if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
        return Err(format!("{option} of plan; accepted: run --workload NAME --dry-run"));
    }
    let origins = workloads::origins::<PlanArgs>(None, arguments)?;
    PlanConfig::new(args.run.try_into()?, args.dma_mask, origins).map(Invocation::Plan)
}

/// `run`, or the plan of it.
pub(super) fn run_or_plan(args: RunArgs, arguments: &[OsString]) -> Result<Invocation, String> {
    let dry_run = args.dry_run;
    let workload = args.mixed.workload.clone();
    match workloads::run(args, arguments)? {
        Invocation::Run(run) if dry_run => {
            let origins = workloads::origins::<RunArgs>(workload.as_deref(), arguments)?;
            PlanConfig::new(run, Vec::new(), origins).map(Invocation::Plan)
        }
        Invocation::Sweep(_) if dry_run => {
            Err("--dry-run with --sweep; accepted: the plan of one run".to_owned())
        }
        invocation => Ok(invocation),
    }
}

/// What a shell reads to complete command lines.
pub(super) fn completions(args: &CompletionsArgs) -> Invocation {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tce-bench", &mut script);
    if args.shell == Shell::Bash {
        // clap_complete 4.6 takes the hyphen of the name for the space before a command in one of the two
        // places that have to agree, and options of commands would not be completed.
        let text = String::from_utf8_lossy(&script);
        script = text.replace("tce__subcmd__bench", "tce__bench").into_bytes();
    }
    Invocation::Print(script)
}

/// A manual page, or all of them.
pub(super) fn manual(args: ManArgs) -> Result<Invocation, String> {
    let mut pages = pages().map_err(|e| format!("a manual page cannot be made: {e}"))?;
    Ok(match args.dir {
        Some(dir) => Invocation::WriteAll(
            pages.into_iter().map(|(name, page)| (dir.join(name), page)).collect(),
        ),
        None => Invocation::Print(pages.swap_remove(0).1),
    })
}

/// The manual pages with their names, that of the program first.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = Cli::command();
    program.build();
    let commands: Vec<_> = program.get_subcommands().filter(|c| c.get_name() != "help").collect();
    let page = |command: &clap::Command| {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let source = concat!("tce-bench ", env!("CARGO_PKG_VERSION"));
        let page = clap_mangen::Man::new(command.clone()).title(name).source(source);
        let mut text = Vec::new();
        page.render(&mut text)?;
        Ok((page.get_filename(), ascii(&String::from_utf8_lossy(&text)).into_bytes()))
    };
    std::iter::once(&program).chain(commands).map(page).collect()
}

/// Formatters need not know UTF-8: other characters by number.
fn ascii(page: &str) -> String {
    let one = |c: char| {
        if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", u32::from(c)) }
    };
    page.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command lines of the examples in a help text.
    fn examples(help: &str) -> Vec<String> {
        let lines = help.lines().filter_map(|line| line.strip_prefix("  tce-bench"));
        lines.map(|line| line.split("    ").next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn every_help_has_examples_and_they_can_be_typed() {
        let mut program = Cli::command();
        program.build();
        let commands: Vec<_> =
            program.get_subcommands().filter(|c| c.get_name() != "help").collect();
        assert!(commands.len() > 15);
        for command in std::iter::once(&program).chain(commands) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let found = examples(&help);
            assert!(!found.is_empty(), "{} has no example", command.get_name());
            for line in found {
                let line = line.split("  ").next().unwrap_or_default();
                // Quotes are the shell's.
                let words = line.split_whitespace().map(|word| word.trim_matches('\''));
                let words = std::iter::once("tce-bench").chain(words);
                // What is behind these is the shell's.
                let words = words.take_while(|word| !["#", ">", "|", "&&"].contains(word));
                if let Err(e) = Cli::try_parse_from(words) {
                    panic!("{}: tce-bench{line}: {e}", command.get_name());
                }
            }
        }
    }

    #[test]
    fn each_command_has_a_manual_page() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "tce-bench.1");
        for name in ["tce-bench-run.1", "tce-bench-doctor.1", "tce-bench-plan.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for (name, page) in &pages {
            let text = String::from_utf8_lossy(page);
            let stem = name.strip_suffix(".1").unwrap();
            assert!(text.contains(&format!(".TH {stem} 1")), "{name}: {text}");
            assert!(text.is_ascii(), "{name}: {text}");
        }
    }
}
