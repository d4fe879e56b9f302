//! Socket options that no crate in use here knows.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// Types that any bytes make a value of.
pub(super) trait Plain: Copy + Default {}
impl Plain for u64 {}
impl Plain for libc::c_int {}

/// Sets an option.
pub(super) fn set<T: Plain>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `value` has, which lives until it returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option.
pub(super) fn get<T: Plain>(socket: impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has as many and of which any are a value; both live
    // until it returns.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Has a socket send by one interface alone.
pub(super) fn bind_to_device(socket: impl AsFd, link: &str) -> io::Result<()> {
    let length = link.len() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: the kernel reads `length` bytes of `link`, which has as many and lives until it returns.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, link.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
