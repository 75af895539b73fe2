// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real machine before its groups are asked, which would take them from the host: a simulated kernel
//! with the same pages on the host bridges that come with such a processor.

use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::platform::Platform;

use super::machine::Machine;
use crate::cli::{BackendChoice, RunConfig};
use crate::host::{CpuFacts, HostFacts};
use crate::kernel::Unavailable;

/// The host bridges that come with the processor; `None` if it is none of POWER.
pub(crate) fn bridges(cpu: &CpuFacts) -> Option<Platform> {
    if cpu.platform.as_deref().is_some_and(|platform| platform.contains("pSeries")) {
        return Some(Platform::Pseries);
    }
    let model = cpu.model.as_deref()?.to_uppercase();
    let generation = model.strip_prefix("POWER")?;
    let digits: String = generation.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u32>().ok()? {
        ..7 => None,
        7 => Some(Platform::Ioda1),
        8 => Some(Platform::Phb3),
        9 => Some(Platform::Phb4),
        10.. => Some(Platform::Phb5),
    }
}

/// A machine like `host` with the groups of `config`, numbered from 0, and what it stands for. Where the
/// processor tells no bridges, they are those of a POWER8.
///
/// # Errors
/// If there is no such machine.
pub(crate) fn model(
    config: &RunConfig,
    host: &HostFacts,
) -> Result<(Machine, Platform), Unavailable> {
    let platform = bridges(&host.cpu).unwrap_or(Platform::Phb3);
    let newest = Profile::ALL.into_iter().rev().find(|p| p.runs_on(platform).is_ok());
    let config = RunConfig {
        backend: BackendChoice::MockKernel,
        host_page_shift: Some(host.page_size.trailing_zeros() as u8),
        simulated: (newest.unwrap_or(Profile::K6_11), platform),
        vfio_groups: None,
        memlock_bytes: None,
        ..config.clone()
    };
    Ok((Machine::open(&config, &mut Vec::new())?, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_come_with_the_processor() {
        let cpu = |model: &str, platform: &str| {
            let (model, platform) = (Some(model.to_owned()), Some(platform.to_owned()));
            bridges(&CpuFacts { model, platform, ..CpuFacts::default() })
        };
        assert_eq!(cpu("POWER8E (raw), altivec supported", "PowerNV"), Some(Platform::Phb3));
        assert_eq!(cpu("POWER9, altivec supported", "PowerNV"), Some(Platform::Phb4));
        assert_eq!(cpu("POWER10, altivec supported", "PowerNV"), Some(Platform::Phb5));
        assert_eq!(cpu("POWER7 (raw), altivec supported", "PowerNV"), Some(Platform::Ioda1));
        assert_eq!(cpu("POWER9 (architected)", "pSeries"), Some(Platform::Pseries));
        assert_eq!(cpu("Some Xeon", ""), None);
        assert_eq!(bridges(&CpuFacts::default()), None);
    }
}
