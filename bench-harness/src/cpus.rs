// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CPU lists ("0,2-5") and pinning of the current thread.

use std::fs;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::size::whole;

/// No CPU list may name more CPUs than this.
const MAX_LISTED: usize = 8192;

const FORMS: &str = "CPU numbers and ranges with commas, as 0,2-5";

/// Parses a list like `0,2-5` into its numbers, in the order given.
///
/// # Errors
/// One line with the part that is wrong and the accepted form: empty, not a number, a range that
/// goes backwards, or a CPU named twice.
pub fn parse_list(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let wrong = || format!("CPU list '{text}': '{part}' is wrong; accepted: {FORMS}");
        let number = |digits: &str| whole::<usize>(digits).ok_or_else(wrong);
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last < first || last - first >= MAX_LISTED || cpus.len() >= MAX_LISTED {
            return Err(wrong());
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU list '{text}': CPU {cpu} is named twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// Numbers as a short list: `0,2-5`.
pub fn format_list(cpus: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut index = 0;
    while index < cpus.len() {
        let mut end = index;
        while end + 1 < cpus.len() && cpus[end + 1] == cpus[end] + 1 {
            end += 1;
        }
        parts.push(if end == index {
            cpus[index].to_string()
        } else {
            format!("{}-{}", cpus[index], cpus[end])
        });
        index = end + 1;
    }
    parts.join(",")
}

/// The CPUs that this process may run on; empty if the system does not tell.
pub fn allowed() -> Vec<usize> {
    // Read from /proc, since an affinity mask of fixed size fails on machines with more CPUs.
    fs::read_to_string("/proc/self/status").map_or_else(|_| Vec::new(), |s| allowed_in(&s))
}

fn allowed_in(status: &str) -> Vec<usize> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(|list| parse_list(list.trim()).ok())
        .unwrap_or_default()
}

/// Checks that each CPU exists and is allowed.
///
/// # Errors
/// One line with the first CPU that is not, and the list of those that are.
pub fn check(cpus: &[usize]) -> Result<(), String> {
    check_against(cpus, &allowed())
}

fn check_against(cpus: &[usize], allowed: &[usize]) -> Result<(), String> {
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) if !allowed.is_empty() => Err(format!(
            "CPU {cpu} does not exist here or is not allowed; accepted: {}",
            format_list(allowed)
        )),
        _ => Ok(()),
    }
}

/// Pins the current thread to one CPU.
///
/// # Errors
/// One line with the CPU and the allowed ones, or what the system said.
pub fn pin_current(cpu: usize) -> Result<(), String> {
    check(&[cpu])?;
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("CPU {cpu} cannot be pinned to; the limit is {}", CpuSet::MAX_CPU - 1));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| {
        format!("cannot pin to CPU {cpu}: {error}; accepted: {}", format_list(&allowed()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order() {
        assert_eq!(parse_list("0"), Ok(vec![0]));
        assert_eq!(parse_list("0,2-5"), Ok(vec![0, 2, 3, 4, 5]));
        assert_eq!(parse_list("7, 1-2"), Ok(vec![7, 1, 2]));
    }

    #[test]
    fn wrong_lists_name_the_part() {
        for text in ["", ",", "1,", "a", "5-2", "1-", "-1", "1-2-3", "0x1", "0-99999", "+1"] {
            let error = parse_list(text).unwrap_err();
            assert!(error.contains("accepted: CPU numbers"), "{text}: {error}");
        }
        assert!(parse_list("0-3,2").unwrap_err().contains("CPU 2 is named twice"));
        assert!(parse_list("99999999999999999999999").is_err());
    }

    #[test]
    fn lists_print_as_they_are_typed() {
        assert_eq!(format_list(&[0, 2, 3, 4, 5]), "0,2-5");
        assert_eq!(format_list(&[]), "");
        assert_eq!(format_list(&[3, 1]), "3,1");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused_with_those_that_are() {
        let error = check_against(&[0, 9], &[0, 1, 2, 3]).unwrap_err();
        assert_eq!(error, "CPU 9 does not exist here or is not allowed; accepted: 0-3");
        assert_eq!(check_against(&[9], &[]), Ok(()), "the system did not tell: let it decide");
        assert_eq!(allowed_in("Name:\tx\nCpus_allowed_list:\t0-1,8\n"), [0, 1, 8]);
        assert!(pin_current(8000).is_err());
    }

    #[test]
    fn a_pinned_thread_runs_on_its_cpu_only() {
        let Some(&cpu) = allowed().last() else { return };
        let seen = std::thread::spawn(move || {
            pin_current(cpu).unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            allowed_in(&status)
        });
        assert_eq!(seen.join().unwrap(), [cpu]);
    }
}
