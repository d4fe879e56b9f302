//! Network namespaces: make, enter, remove.
//!
//! Needs CAP_SYS_ADMIN. A namespace is named as iproute2 does it, by a bind mount under `/run/netns`, so that
//! `ip netns exec NAME ...` works on it; `/run/netns` becomes a shared mount if it was not, as iproute2 would make it.
//! Yields [`Netns`], which removes its name when dropped; the kernel frees the namespace when the last thread, socket
//! and descriptor in it is gone.

use super::LabError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// Where named namespaces are mounted.
pub const RUN_DIR: &str = "/run/netns";

/// A network namespace with a name, which goes when this is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    file: File,
    inode: u64,
}

impl Netns {
    /// Makes a namespace, empty but for a loopback interface that is down.
    ///
    /// # Errors
    /// [`LabError::File`] when the name is taken or cannot be mounted, [`LabError::Namespace`] when the name is no file
    /// name or the kernel makes no namespace.
    pub fn create(name: &str) -> Result<Self, LabError> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            let (action, name) = ("create", name.to_owned());
            return Err(LabError::Namespace { action, name, source: io::ErrorKind::InvalidInput.into() });
        }
        prepare_run_dir()?;
        let path = path_of(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(LabError::file("create", &path))?;
        Self::mount_new(name, &path).inspect_err(|_| {
            if let Err(error) = remove_name(name) {
                tracing::warn!(%error, name, "a namespace that could not be made left its name behind");
            }
        })
    }

    /// Unshares on a thread that ends at once; the mount keeps the namespace.
    fn mount_new(name: &str, path: &Path) -> Result<Self, LabError> {
        on_thread(name, || {
            // SAFETY: CLONE_NEWNET changes the namespace of this thread alone, and this thread ends after the mount;
            // no descriptor table or file system state that other threads rely on is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|errno| {
                LabError::Namespace { action: "create", name: name.to_owned(), source: errno.into() }
            })?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", path)
                .map_err(LabError::file("mount a namespace on", path))
        })??;
        let file = File::open(path).map_err(LabError::file("open", path))?;
        let inode = file.metadata().map_err(LabError::file("read", path))?.ino();
        Ok(Self { name: name.to_owned(), path: path.to_owned(), file, inode })
    }

    /// Name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number, as in `/proc/PID/ns/net` and the kernel's `net.ns.inum`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// A descriptor of the namespace, for netlink's IFLA_NET_NS_FD.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves the calling thread in. The thread must be one that ends afterwards: it is never moved back.
    pub(super) fn enter(&self) -> Result<(), LabError> {
        enter(&self.file, &self.name)
    }

    /// Runs `work` in the namespace, on a thread of its own that ends with it, and waits for it. Threads that `work`
    /// starts are in the namespace too. A panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// [`LabError::Namespace`] when the thread cannot be started or may not enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_thread(&self.name, || self.enter().map(|()| work()))?
    }

    /// Starts `work` in the namespace on a thread of its own; joining it yields an error where it may not enter.
    ///
    /// # Errors
    /// [`LabError::Namespace`] when the thread cannot be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T, LabError>>, LabError> {
        let file = self.file.try_clone().map_err(|e| self.error("enter", e))?;
        let name = self.name.clone();
        thread::Builder::new()
            .name(thread_name(&self.name))
            .spawn(move || enter(file, &name).map(|()| work()))
            .map_err(|e| self.error("start a thread in", e))
    }

    /// Reads a kernel parameter as this namespace has it, without the newline; `key` is a path below `/proc/sys`,
    /// such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// [`LabError::Sysctl`] when there is none of that name.
    pub fn sysctl(&self, key: &str) -> Result<String, LabError> {
        self.run(|| fs::read_to_string(sysctl_path(key)))?
            .map(|text| text.trim_end().to_owned())
            .map_err(|source| LabError::Sysctl { key: key.to_owned(), value: String::new(), source })
    }

    /// Sets a kernel parameter in this namespace; `key` as in [`Netns::sysctl`].
    ///
    /// # Errors
    /// [`LabError::Sysctl`] when there is none of that name or the kernel refuses the value.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        self.run(|| set_sysctl(key, value))?
    }

    /// Removes the name now and says how that went; dropping does the same and logs a failure.
    ///
    /// # Errors
    /// [`LabError::File`] when it cannot be unmounted or unlinked.
    pub fn remove(mut self) -> Result<(), LabError> {
        remove_name(&std::mem::take(&mut self.name))
    }

    fn error<E: Into<io::Error>>(&self, action: &'static str, source: E) -> LabError {
        LabError::Namespace { action, name: self.name.clone(), source: source.into() }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        if let Err(error) = remove_name(&self.name) {
            tracing::warn!(%error, name = self.name, "a namespace could not be removed");
        }
    }
}

fn enter(netns: impl AsFd, name: &str) -> Result<(), LabError> {
    rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| LabError::Namespace { action: "enter", name: name.to_owned(), source: errno.into() })
}

/// Sets a kernel parameter in the namespace of the calling thread.
pub(super) fn set_sysctl(key: &str, value: &str) -> Result<(), LabError> {
    fs::write(sysctl_path(key), value).map_err(|source| LabError::Sysctl {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// Unmounts and unlinks a name; one that is not there is not an error.
pub(super) fn remove_name(name: &str) -> Result<(), LabError> {
    let path = path_of(name);
    match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        // EINVAL: the file is there and nothing is mounted on it.
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(errno) => return Err(LabError::file("unmount", path)(errno)),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LabError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether there is a namespace of that name.
pub(super) fn exists(name: &str) -> bool {
    path_of(name).exists()
}

fn path_of(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join(name)
}

/// Makes `/run/netns` a shared mount, so that a name removed here is gone in every mount namespace. The lock is
/// iproute2's own, so that two that start at once do not stack two mounts.
fn prepare_run_dir() -> Result<(), LabError> {
    fs::create_dir_all(RUN_DIR).map_err(LabError::file("create", RUN_DIR))?;
    let dir = File::open(RUN_DIR).map_err(LabError::file("open", RUN_DIR))?;
    flock(&dir, FlockOperation::LockExclusive).map_err(LabError::file("lock", RUN_DIR))?;
    let share =
        || rustix::mount::mount_change(RUN_DIR, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        // EINVAL: it is a plain directory yet.
        Err(Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(RUN_DIR, RUN_DIR)
                .map_err(LabError::file("bind mount", RUN_DIR))?;
            share().map_err(LabError::file("share the mount", RUN_DIR))
        }
        other => other.map_err(LabError::file("share the mount", RUN_DIR)),
    }
}

/// Runs `work` on a scoped thread that ends with it.
fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name(thread_name(name)).spawn_scoped(scope, work).map_err(|source| {
                LabError::Namespace { action: "start a thread in", name: name.to_owned(), source }
            })?;
        thread.join().map_or_else(|panic| resume_unwind(panic), Ok)
    })
}

/// The last part of the namespace's name, as the kernel keeps 15 bytes.
fn thread_name(netns: &str) -> String {
    format!("lab-{}", netns.rsplit('-').next().unwrap_or(netns))
}
