// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `soak`.

use clap::Args;

use super::policies::each_once;
use super::values;
use crate::cmd::soak::Machine;
use crate::outfile::OutFile;
use crate::policy::Policy;
use crate::size::whole;

pub(super) const EXAMPLES: &str = "\
Each thread makes random calls: maps, lists, batches, replacements, unmaps, addresses from an allocator,
windows, groups, registrations; by containers and by handles. A model with plain maps says beforehand what
has to come of each: the answer with its counts or the very error, what a device finds at the pages that
were changed, and kills under strict. Now and then, and at the end, everything is compared: all entries,
mapped counts, members, windows, addresses, debts, charges; then nothing may be left. The mix is such that
few calls are refused: more than 20 % fail the run.

More than one thread first have containers of their own, of one engine, then parts of one container. What
is not as the model has it ends the run; it is printed with its call, with the command that makes the same
calls again, and with as few calls as still lead to it.

--guest: a guest, by one vCPU a thread, makes hypercalls with any LIOBN, bus address, entry, list and
count, makes and removes windows of any size, and changes its lists meanwhile. Another guest and a driver
beside it have to find their entries as they were; the guest's may only lead to its own memory; windows,
tables, pins and memory stay below bounds that are printed. The longest call is shown and not judged.

Machines:
  phb3-4k phb3 phb3-run phb3-never phb3-tight phb4-4k phb5

Examples:
  tce-bench soak
  tce-bench soak --operations 1G --threads 1,2 --seed 7 --json soak.json
  tce-bench soak --threads 1 --policy deferred=64 --machine phb3-4k,phb4-4k
  tce-bench soak --guest --operations 10M --threads 4

Exit code 1 if anything was not as it has to be (schema tce-bench.soak/1).";

/// Most threads at a time: each has four groups, and a machine 256.
const MOST_THREADS: u32 = 16;

/// Options of `soak`.
#[derive(Debug, Args)]
pub(super) struct SoakArgs {
    /// Calls of all threads, policies and machines together, as 200000, 500k, 10M or 1G, by thousands
    #[arg(long, value_name = "N", default_value = "2M", value_parser = operations)]
    operations: u64,
    /// Numbers of threads to try, one after the other, up to 16
    #[arg(long, value_name = "LIST", default_value = "1,2", value_delimiter = ',')]
    #[arg(value_parser = values::count::<MOST_THREADS>)]
    threads: Vec<u32>,
    /// A policy to try: strict, batched or deferred=PAGES[,AGE]. When a batch ends is random. May be given
    /// more than once [default: strict, batched and deferred=64]
    #[arg(long = "policy", value_name = "POLICY", value_parser = policy)]
    policies: Vec<Policy>,
    /// Machines to take turns [default: all]
    #[arg(long = "machine", value_name = "LIST", value_delimiter = ',', value_parser = machine)]
    machines: Vec<Machine>,
    /// Make hypercalls of a hostile guest instead
    #[arg(long)]
    guest: bool,
    /// Seed of all random choices, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// A name for this run, kept in the result
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    label: Option<String>,
    /// No progress bar and no table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

fn operations(text: &str) -> Result<u64, String> {
    const MOST: u64 = 1_000_000_000_000;
    let units = [('k', 1_000), ('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let unit = units.into_iter().find_map(|(unit, by)| Some((text.strip_suffix(unit)?, by)));
    let (digits, by) = unit.unwrap_or((text, 1));
    let number: Option<u64> = whole(digits).and_then(|number: u64| number.checked_mul(by));
    number.filter(|number| (1..=MOST).contains(number)).ok_or_else(|| {
        format!(
            "'{text}' is no number of operations; accepted: a whole number from 1 to 1000G, with k, M or G \
             for thousands, millions or thousand millions"
        )
    })
}

fn policy(text: &str) -> Result<Policy, String> {
    match values::policy(text)? {
        Policy::Batched(Some(_)) => {
            Err(format!("'{text}' says when a batch ends, which is random here; accepted: batched"))
        }
        policy => Ok(policy),
    }
}

fn machine(name: &str) -> Result<Machine, String> {
    Machine::find(name).ok_or_else(|| {
        let all = Machine::ALL.map(|m| format!("{} ({})", m.name, m.about));
        format!("no machine {name:?}; there are {}", all.join(", "))
    })
}

/// The settings of `soak`.
#[derive(Debug, Clone, PartialEq)]
pub struct SoakConfig {
    /// At least 1.
    pub operations: u64,
    /// At least one, each once.
    pub threads: Vec<u32>,
    /// At least one, each once.
    pub policies: Vec<Policy>,
    /// At least one for each number of threads, each once.
    pub machines: Vec<Machine>,
    /// Hypercalls of a hostile guest.
    pub guest: bool,
    /// Of all random choices.
    pub seed: u64,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// A name for the run.
    pub label: Option<String>,
    /// No progress bar and no table.
    pub quiet: bool,
}

impl TryFrom<SoakArgs> for SoakConfig {
    type Error = String;

    fn try_from(args: SoakArgs) -> Result<Self, String> {
        let mut policies = args.policies;
        if policies.is_empty() {
            let deferred = Policy::Deferred { max_pages: 64, max_age: None };
            policies = vec![Policy::Strict, Policy::Batched(None), deferred];
        }
        let mut machines = args.machines;
        if machines.is_empty() {
            machines = Machine::ALL.into();
        }
        let threads = each_once(args.threads);
        let none = |n: &&u32| !machines.iter().any(|machine| machine.takes(**n));
        if let Some(n) = threads.iter().find(none) {
            return Err(format!(
                "--threads {n} on phb3-tight, where who is refused depends on what others have; accepted \
                 there: 1"
            ));
        }
        Ok(Self {
            operations: args.operations,
            threads,
            policies: each_once(policies),
            machines: each_once(machines),
            guest: args.guest,
            seed: args.seed,
            json: args.json.as_deref().map(OutFile::from),
            label: args.label,
            quiet: args.quiet,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_operations() {
        for (text, number) in [("7", 7), ("200k", 200_000), ("10M", 10_000_000), ("1000G", 1 << 40)]
        {
            let expected = if number == 1 << 40 { 1_000_000_000_000 } else { number };
            assert_eq!(operations(text), Ok(expected));
        }
        for text in ["", "M", "0", "+1", "1.5M", "1001G", "10T", "99999999999999999999G"] {
            let error = operations(text).unwrap_err();
            assert!(error.contains("accepted: a whole number from 1 to 1000G"), "{error}");
        }
    }

    #[test]
    fn the_help_names_all_machines() {
        let all = Machine::ALL.map(|machine| machine.name).join(" ");
        assert!(EXAMPLES.contains(&all), "{all}");
    }
}
