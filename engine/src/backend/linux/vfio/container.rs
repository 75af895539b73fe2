// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An open container of the kernel and its groups.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::sync::Weak;

use super::tree::Tree;
use super::{Vfio, sys};
use crate::addr::GroupId;
use crate::backend::linux::raw::{Errno, Raw, RawContainer};
use crate::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, GroupStatus, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
};
use crate::sync::{Arc, Mutex, lock};

/// A container of the kernel.
///
/// As a file descriptor ([`AsFd`]) it can be given to another process, for instance as its standard
/// input.
#[derive(Debug)]
pub struct Container {
    // Fields are dropped in this order, so groups are closed first.
    groups: Mutex<BTreeMap<GroupId, Arc<OwnedFd>>>,
    fd: OwnedFd,
    tree: Tree,
    known: Groups,
}

/// The groups that are open in any container of a [`Vfio`].
pub(super) type Groups = Arc<Mutex<BTreeMap<GroupId, Weak<OwnedFd>>>>;

/// Device number of `/dev/vfio/vfio`: major 10 (miscellaneous), minor 196, as Linux's list of
/// devices assigns them.
const CONTAINER_NODE: u64 = 10 << 8 | 196;

impl Container {
    /// Opens a new container.
    pub(super) fn open(tree: &Tree, known: Groups) -> Result<Self, Errno> {
        let fd = tree.open_node("vfio")?;
        Ok(Self { groups: Mutex::default(), fd, tree: tree.clone(), known })
    }

    /// A container that was opened elsewhere, such as one inherited from another process. No group
    /// counts as opened by it. `vfio` stands for the promise of [`Vfio::new`], which is needed for
    /// this container as well.
    ///
    /// # Errors
    /// EBADFD if `fd` is not an open `/dev/vfio/vfio`.
    pub fn from_fd(vfio: &Vfio, fd: OwnedFd) -> Result<Self, Errno> {
        let file = File::from(fd);
        let node = file.metadata()?;
        if !node.file_type().is_char_device() || node.st_rdev() != CONTAINER_NODE {
            return Err(Errno::EBADFD);
        }
        let (tree, known) = (vfio.tree.clone(), vfio.groups.clone());
        Ok(Self { groups: Mutex::default(), fd: file.into(), tree, known })
    }

    fn with_group<T>(
        &self,
        group: GroupId,
        request: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let groups = lock(&self.groups);
        request(groups.get(&group).ok_or(Errno::EINVAL)?.as_fd())
    }
}

impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl RawContainer for Container {
    fn check_extension(&self, extension: u32) -> Raw {
        sys::check_extension(self.as_fd(), extension)
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        sys::set_iommu(self.as_fd(), kind)
    }

    fn open_group(&self, group: GroupId) -> Raw {
        let mut groups = lock(&self.groups);
        if groups.contains_key(&group) {
            return Err(Errno::EBUSY);
        }
        let fd = Arc::new(self.tree.open_node(&group.to_string())?);
        lock(&self.known).insert(group, Arc::downgrade(&fd));
        groups.insert(group, fd);
        Ok(0)
    }

    fn close_group(&self, group: GroupId) -> Raw {
        // Closed under the lock: who finds the group gone can open it again.
        lock(&self.groups).remove(&group).map(|_| 0).ok_or(Errno::EINVAL)
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        self.with_group(group, status)
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.with_group(group, |fd| sys::set_container(fd, self.as_fd()))
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.with_group(group, |fd| sys::unset_container(fd, 0))
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        sys::info(self.as_fd(), info)
    }

    fn enable(&self) -> Raw {
        sys::enable(self.as_fd(), 0)
    }

    fn disable(&self) -> Raw {
        sys::disable(self.as_fd(), 0)
    }

    fn register(&self, arg: &RegisterMemory) -> Raw {
        sys::register(self.as_fd(), &mut { *arg })
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        sys::unregister(self.as_fd(), &mut { *arg })
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        sys::create(self.as_fd(), arg)
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        sys::remove(self.as_fd(), &mut { *arg })
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        sys::map(self.as_fd(), &mut { *arg })
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        sys::unmap(self.as_fd(), arg)
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        sys::eeh(self.as_fd(), &mut { *arg })
    }

    fn fault(&self, request: Request) -> Raw {
        sys::fault(self.as_fd(), request)
    }
}

/// GROUP_GET_STATUS of an open group: its flags.
pub(super) fn status(group: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut status = GroupStatus { argsz: GroupStatus::SIZE, flags: 0 };
    sys::group_status(group, &mut status)?;
    Ok(status.flags)
}

#[cfg(all(test, not(miri)))] // it has no ioctl
mod tests {
    use super::super::sys::tests::unknown;
    use super::super::tree::testing::Fake;
    use super::*;
    use crate::backend::linux::uapi::kind;

    #[test]
    fn nodes_that_are_missing_open_twice_or_not_open() {
        let fake = Fake::new();
        assert_eq!(Container::open(&fake, Groups::default()).err(), Some(Errno::ENOENT));
        fake.file("dev/vfio/vfio", "");
        let container = Container::open(&fake, Groups::default()).unwrap();
        assert_eq!(container.open_group(GroupId(3)), Err(Errno::ENOENT));
        assert_eq!(container.close_group(GroupId(3)), Err(Errno::EINVAL));
        assert_eq!(container.group_status(GroupId(3)), Err(Errno::EINVAL));
        fake.file("dev/vfio/3", "");
        assert_eq!(container.open_group(GroupId(3)), Ok(0));
        assert_eq!(container.open_group(GroupId(3)), Err(Errno::EBUSY));
        assert_eq!(container.close_group(GroupId(3)), Ok(0));
        assert_eq!(container.open_group(GroupId(3)), Ok(0));
    }

    #[test]
    fn requests_reach_the_kernel() {
        let fake = Fake::new();
        fake.file("dev/vfio/vfio", "");
        fake.file("dev/vfio/3", "");
        let vfio = Vfio::over(fake.clone());
        let container = vfio.open_container().unwrap();
        container.open_group(GroupId(3)).unwrap();
        assert_eq!(container.set_iommu(kind::SPAPR_TCE_V2), Err(unknown()));
        assert_eq!(container.set_container(GroupId(3)), Err(unknown()));
        assert_eq!(container.group_status(GroupId(3)), Err(unknown()));
        assert_eq!(container.map(&DmaMap::new(3, 0, 1 << 16, 0)), Err(unknown()));
        let device = |name| vfio.device(GroupId(3), name).err();
        assert_eq!(device("0000:00:00.0"), Some(unknown()));
        assert_eq!(device("a\0b"), Some(Errno::EINVAL));
        assert_eq!(vfio.device(GroupId(4), "0000:00:00.0").err(), Some(Errno::EINVAL));
        container.close_group(GroupId(3)).unwrap();
        assert_eq!(device("0000:00:00.0"), Some(Errno::EINVAL));
    }

    #[test]
    fn only_a_container_is_adopted() {
        let vfio = Vfio::over(Tree::default());
        let null = File::open("/dev/null").unwrap();
        assert_eq!(Container::from_fd(&vfio, null.into()).err(), Some(Errno::EBADFD));
    }
}
