// SPDX-License-Identifier: Apache-2.0 OR MIT
//! EEH_PE_OP: to every group of the container in turn, until one answers something but 0.

use super::GroupState;
use super::spapr::Spapr;
use super::state::State;
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{EehPeOp, eeh_op};

/// The size of an argument without the error to inject.
const SHORT: u32 = 12;

impl State {
    pub(super) fn eeh(&mut self, spapr: &Spapr, arg: Option<&EehPeOp>) -> Raw {
        for group in &spapr.groups {
            let found = self.group(*group);
            if !found.attrs.eeh {
                return Err(Errno::ENODEV);
            }
            let ret = apply(&mut found.state, arg.ok_or(Errno::EFAULT)?)?;
            if ret != 0 {
                return Ok(ret);
            }
        }
        Ok(0)
    }
}

fn apply(state: &mut GroupState, arg: &EehPeOp) -> Raw {
    if arg.argsz < SHORT || arg.flags != 0 {
        return Err(Errno::EINVAL);
    }
    *state = match (arg.op, *state) {
        (eeh_op::GET_STATE, state) => return Ok(state as i32),
        (eeh_op::DISABLE | eeh_op::ENABLE | eeh_op::CONFIGURE, state) => state,
        (eeh_op::UNFREEZE_IO, GroupState::Stopped) => GroupState::DmaStopped,
        (eeh_op::UNFREEZE_DMA, GroupState::DmaStopped) => GroupState::Normal,
        (eeh_op::UNFREEZE_IO | eeh_op::UNFREEZE_DMA, state) => state,
        (eeh_op::RESET_DEACTIVATE, _) => GroupState::Normal,
        (eeh_op::RESET_HOT | eeh_op::RESET_FUNDAMENTAL, _) => GroupState::InReset,
        (eeh_op::INJECT_ERR, state) => {
            // 32 or 64 bit addresses; the functions are numbered up to 19.
            if arg.argsz < EehPeOp::SIZE || arg.err.kind > 1 || arg.err.func > 19 {
                return Err(Errno::EINVAL);
            }
            state
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok(0)
}
