// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fixtures of the tests of `papr`: a guest's list page, and who makes its calls.

use tce_engine::addr::Gra;
use tce_engine::papr::{Answer, GuestMemory, HCode, Papr, Vcpu};

/// A guest's list page, wherever it is looked for; there is none beyond its length.
pub(crate) struct List(pub(crate) Option<Vec<u64>>);

impl GuestMemory for List {
    fn copy_words(&self, _: Gra, words: &mut [u64]) -> bool {
        let Some(list) = &self.0 else { return false };
        words.iter_mut().zip(list).for_each(|(w, v)| *w = v.to_be());
        list.len() >= words.len()
    }
}

/// Who calls: the guest as a whole, or one vCPU's handle. They get the same answers.
pub(crate) struct Caller<'a>(pub(crate) &'a Papr, pub(crate) Option<&'a mut Vcpu>);

impl Caller<'_> {
    pub(crate) fn put_tce(&mut self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        match self {
            Self(_, Some(vcpu)) => vcpu.put_tce(liobn, ioba, tce),
            Self(papr, None) => papr.put_tce(liobn, ioba, tce),
        }
    }

    pub(crate) fn put_tce_indirect(
        &mut self,
        liobn: u64,
        ioba: u64,
        list: u64,
        count: u64,
        memory: &List,
    ) -> Answer {
        match self {
            Self(_, Some(vcpu)) => vcpu.put_tce_indirect(liobn, ioba, list, count, memory),
            Self(papr, None) => papr.put_tce_indirect(liobn, ioba, list, count, memory),
        }
    }

    pub(crate) fn stuff_tce(&mut self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        match self {
            Self(_, Some(vcpu)) => vcpu.stuff_tce(liobn, ioba, tce, count),
            Self(papr, None) => papr.stuff_tce(liobn, ioba, tce, count),
        }
    }

    pub(crate) fn get_tce(&mut self, liobn: u64, ioba: u64) -> (HCode, u64) {
        match self {
            Self(_, Some(vcpu)) => vcpu.get_tce(liobn, ioba),
            Self(papr, None) => papr.get_tce(liobn, ioba),
        }
    }
}
