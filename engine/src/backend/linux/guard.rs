// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What stands between the engine and a kernel's answers.
//!
//! | what Linux does (6.12, or as said) | what is done instead | where |
//! |---|---|---|
//! | MAP or UNMAP of size 0 at index 0 hangs | refused | `container::mapping` |
//! | a MAP whose first page fails at index 0 hangs | memory, backing and bounds are checked first; another page of its leaf goes first until that is known to exist | `regions::plan`, `opened` |
//! | a misaligned bus address returns +1 | refused; any answer but 0 is an error | `container::mapping`, [`done`] |
//! | a MAP may go past the window's end and corrupt memory | refused | `container::mapping` |
//! | an UNMAP past the end clears what is behind the table | refused | `container::mapping` |
//! | a MAP that fails clears what was there | put back from the mirror | `container::publish` |
//! | REGISTER of a range with a hole returns the pages before it | an error | `Linux::pin`, [`done`] |
//! | with 4K pages, REGISTER behind the first 2 MiB of a huge page never returns | refused | `Linux::pin` |
//! | UNREGISTER of mapped memory returns 0 and orphans it | refused while anything is mapped | `container::Container::unregister` |
//! | a CREATE that fails leaks its charge | shape and block size are computed first; one request | `geometry`, `container::windows` |
//! | a CREATE whose answer cannot be written (EFAULT) has made its window | removed again | `opened` |
//! | the default window takes slot 0 as soon as anything is mapped | removed at once | `space` |
//! | a version 1 container keeps its window, and the charge for it, until it is closed | where a window is taken back, it is closed and opened again | `space` |
//! | REMOVE takes any address inside a window | only an exact start | `container::windows` |
//! | leaving empties the windows of those that stay | refused, or replayed | `container::groups` |
//! | firmware codes are returned as error numbers | reported as what they are | [`window`] |
//! | up to 4.18, windows are charged otherwise, from 4.9 on a part by the first MAP | found out by a window of a trial container; that part by a MAP of nothing at page 1, and paid ahead until that is allowed | `charging`, `space` |
//! | 4.9: a group that joins late does not get the windows | refused where charges are as in 4.9 to 4.18 | `space` |
//! | before 5.0, UNREGISTER of memory that is counted for good is EBUSY | the ledger keeps it, as where it is orphaned | `space` |
//! | up to 4.8, a repeated REGISTER counts, and regions outlive their container | refused; unregistered before the container goes | `container` |
//! | before 6.4, each version has groups of its own | the error says which | `opened` |
//! | in a guest, a table is one group's alone | a second group is refused with the windows that are there | `opened` |
//!
//! Nothing is done about three habits of 4.2 to 4.8. They work on the memory and the books of whoever
//! calls, so a container must not be used, nor closed last, by a process that was forked off. A group's
//! default window is charged as soon as it is attached: a smaller limit of locked memory fails there,
//! and with a version 1 container, or a default window that is kept, the ledger has the charge only
//! when the engine is asked for that window. And a region outlives its container if UNREGISTER refuses it
//! at the end; by our reading it never does when nothing is mapped there.

use super::raw::{Errno, Raw};
use crate::error::BackendError;

/// The request is done: the kernel answered 0, as only success does.
pub(super) fn done(answer: Raw, request: impl FnOnce() -> String) -> Result<(), BackendError> {
    match answer {
        Ok(0) => Ok(()),
        Ok(positive) => Err(BackendError::Kernel {
            request: request(),
            answer: format!("{positive}, which is no success although it is no error number"),
            errno: None,
        }),
        Err(errno) => Err(refused(errno, request)),
    }
}

/// The kernel answered with an error number.
pub(super) fn plain(errno: Errno, request: impl FnOnce() -> String) -> BackendError {
    BackendError::Kernel { request: request(), answer: errno.to_string(), errno: Some(errno.0) }
}

/// A container in use answered with an error number. EPERM is what everybody gets but the process
/// that first used it; what else it can mean cannot happen behind the engine's checks.
pub(super) fn refused(errno: Errno, request: impl FnOnce() -> String) -> BackendError {
    if errno == Errno::EPERM { BackendError::WrongProcess } else { plain(errno, request) }
}

/// Setting a window failed. The request had been checked, so what came back is the code of the
/// firmware, which Linux passes on as it is.
pub(super) fn window(errno: Errno, request: impl FnOnce() -> String) -> BackendError {
    // These are what Linux itself answers for lack of memory, of a slot, or of the container.
    if matches!(
        errno,
        Errno::ENOMEM | Errno::ENOSPC | Errno::EINVAL | Errno::ENODEV | Errno::EFAULT
    ) {
        return plain(errno, request);
    }
    BackendError::Kernel {
        request: request(),
        answer: format!("firmware code -{} (which reads as {errno:?})", errno.0),
        errno: Some(errno.0),
    }
}
