//! A table of descriptors of the calling thread's own.
//!
//! Needs nothing. Yields calls that are as fast as those of a process without threads: in a table that others share, the kernel
//! takes a reference to the socket at each call and drops it (`fdget`, include/linux/file.h).
//!
//! What such a thread opens is its alone, and so is what it closes. It must hold nothing that it has not opened itself but what
//! it has kept: closing it would close something else, or nothing.

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Of `close_range(2)`: in a copy of the table, which is the thread's own from then on (include/uapi/linux/close_range.h).
const CLOSE_RANGE_UNSHARE: libc::c_uint = 1 << 1;
/// The first descriptor that is neither of the three streams: those stay.
const FIRST: libc::c_uint = 3;

/// Has the calling thread leave the table of its process, with nothing in its own but the three streams. Where the kernel does
/// not (before 5.9, or forbidden), the thread stays where it is, and nothing else differs.
pub(super) fn leave() {
    close_range(FIRST, libc::c_uint::MAX);
}

/// The same, with one more that stays.
pub(super) fn leave_with(kept: BorrowedFd<'_>) {
    let Ok(kept) = libc::c_uint::try_from(kept.as_raw_fd()) else { return };
    // Those beyond it first: they are not even copied.
    if close_range(FIRST.max(kept + 1), libc::c_uint::MAX) && kept > FIRST {
        close_range(FIRST, kept - 1);
    }
}

/// Closes a range of descriptors in a table that is the calling thread's alone. Whether it is.
fn close_range(first: libc::c_uint, last: libc::c_uint) -> bool {
    // SAFETY: it takes numbers. What it closes is of a copy that is made before: those of the process stay as they are.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_UNSHARE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File},
        io::{Read as _, Write as _},
        os::{fd::AsFd as _, unix::net::UnixStream},
        thread,
    };

    /// Numbers of the calling thread's descriptors.
    fn numbers() -> Vec<i32> {
        let entries = fs::read_dir("/proc/thread-self/fd").unwrap();
        let list = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
        let mut numbers: Vec<i32> = list.collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_thread_that_leaves_takes_nothing_with_it_and_closes_nothing() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let inside = thread::spawn(|| {
            leave();
            // The list is read by one.
            let numbers = numbers();
            let opened = File::open("/proc/self/stat").unwrap().as_raw_fd();
            (numbers, opened)
        });
        let (numbers, opened) = inside.join().unwrap();
        assert!(numbers.iter().all(|number| *number <= 3), "{numbers:?}");
        assert_eq!(opened, 3, "its numbers begin anew");
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn what_is_kept_can_be_used_and_a_peer_sees_others_close() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (others, mut others_far) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                leave_with(near.as_fd());
                (&near).write_all(b"x").unwrap();
                // Waits until it is told that the others have been closed.
                (&near).read_exact(&mut [0]).unwrap();
                numbers()
            });
            far.read_exact(&mut [0]).unwrap();
            drop(others);
            assert_eq!(others_far.read(&mut [0]).unwrap(), 0, "no copy is held");
            far.write_all(b"x").unwrap();
            let numbers = inside.join().unwrap();
            assert!(numbers.contains(&near.as_raw_fd()), "{numbers:?}");
            assert!(
                numbers.len() <= 5,
                "beside the three streams and the one that reads the list: {numbers:?}"
            );
        });
    }
}
