// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A kernel's containers with each request counted before it is sent; see [`steps`](crate::steps).

use std::sync::Arc;

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
};

use crate::steps::{Step, are_told, tell};

/// The host, or one that counts if steps are to be counted.
pub(crate) fn told(host: Arc<dyn RawHost>) -> Arc<dyn RawHost> {
    if are_told() { Arc::new(Host(host)) } else { host }
}

#[derive(Debug)]
struct Host(Arc<dyn RawHost>);

impl RawHost for Host {
    fn label(&self) -> &'static str {
        self.0.label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        tell(Step::Open);
        Ok(Box::new(Container(self.0.open()?)))
    }

    fn host_page(&self) -> PageShift {
        self.0.host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        self.0.backing(start, bytes)
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.0.node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.0.locked_bytes()
    }

    fn memlock(&self) -> Option<u64> {
        self.0.memlock()
    }
}

#[derive(Debug)]
struct Container(Box<dyn RawContainer>);

impl Drop for Container {
    fn drop(&mut self) {
        tell(Step::Close);
    }
}

/// Methods that count and pass on.
macro_rules! pass_on {
    ($($step:ident: $name:ident($($arg:ident: $type:ty),*);)*) => {
        $(
            fn $name(&self, $($arg: $type),*) -> Raw {
                tell(Step::$step);
                self.0.$name($($arg),*)
            }
        )*
    };
}

impl RawContainer for Container {
    pass_on! {
        Ask: check_extension(extension: u32);
        Attach: set_iommu(kind: u32);
        Open: open_group(group: GroupId);
        Detach: close_group(group: GroupId);
        Attach: set_container(group: GroupId);
        Detach: unset_container(group: GroupId);
        Ask: info(info: &mut TceInfo);
        Register: enable();
        Unregister: disable();
        Register: register(arg: &RegisterMemory);
        Unregister: unregister(arg: &RegisterMemory);
        Create: create(arg: &mut TceCreate);
        Remove: remove(arg: &TceRemove);
        Map: map(arg: &DmaMap);
        Unmap: unmap(arg: &mut DmaUnmap);
        Ask: eeh(arg: &EehPeOp);
        Ask: fault(request: Request);
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        tell(Step::Ask);
        self.0.group_status(group)
    }
}
