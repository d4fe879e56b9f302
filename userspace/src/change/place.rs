//! Network namespaces as the journal remembers them: found again by a later process, or known to be gone.

use super::{ChangeError, sockopt};
use crate::iface::Namespace;
use rustix::net::{AddressFamily, SocketType, socket};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Number of a namespace that no other has until the next boot (include/uapi/asm-generic/socket.h, Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;
/// Where the namespace that nettrace runs in is.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name: `host`, or as measurements have it.
    pub netns: String,
    /// Where it was found; none for the one that nettrace runs in.
    pub path: Option<PathBuf>,
    /// Its number in `/proc/PID/ns/net`.
    pub inode: u64,
    /// Its number that is never given again; none before Linux 5.14.
    pub cookie: Option<u64>,
}

impl Place {
    /// One by its name: `host`, a name as in `ip netns`, or a path.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be entered.
    pub fn find(netns: &str) -> Result<Self, ChangeError> {
        let path = match netns {
            "host" => None,
            path if path.contains('/') => Some(PathBuf::from(path)),
            name => Some(Path::new("/run/netns").join(name)),
        };
        let missing = |error| ChangeError::Missing { what: format!("network namespace {netns}"), error };
        let inode = fs::metadata(path.as_deref().unwrap_or(Path::new(OWN))).map_err(missing)?.ino();
        let mut place = Self { netns: netns.to_owned(), path, inode, cookie: None };
        place.cookie =
            namespace(&place.netns, place.path.clone()).within(cookie).flatten().map_err(|error| {
                ChangeError::System { what: format!("enter network namespace {netns}"), error }
            })?;
        Ok(place)
    }

    /// Does something in it, on a thread of its own.
    ///
    /// # Errors
    /// When it is gone, cannot be entered, or what is done there fails.
    pub fn within<T: Send>(
        &self,
        what: impl FnOnce() -> Result<T, ChangeError> + Send,
    ) -> Result<T, ChangeError> {
        let name = || format!("network namespace {}", self.netns);
        let gone = || ChangeError::Missing { what: name(), error: io::ErrorKind::NotFound.into() };
        let path = self.again().ok_or_else(gone)?;
        let inside = || {
            // Numbers of namespaces that are gone are given to new ones.
            match (self.cookie, cookie()?) {
                (Some(known), Some(here)) if known != here => Ok(None),
                _ => Ok(Some(what())),
            }
        };
        // That it cannot be entered does not say that it is gone.
        let entered = namespace(&self.netns, path).within(inside).flatten();
        let entered =
            entered.map_err(|error| ChangeError::System { what: format!("enter {}", name()), error })?;
        entered.unwrap_or_else(|| Err(gone()))
    }

    /// Whether another is the same namespace, whatever it is called.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.inode, self.cookie) == (other.inode, other.cookie)
    }

    /// Whether it is the one that nettrace runs in.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.path.is_none()
    }

    /// Where it is now: where it was, or at another name or process.
    fn again(&self) -> Option<Option<PathBuf>> {
        let is_it = |path: &Path| fs::metadata(path).is_ok_and(|m| m.ino() == self.inode);
        if is_it(Path::new(OWN)) {
            return Some(None);
        }
        let names = || fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|e| e.path());
        let processes =
            fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path().join("ns/net"));
        self.path.iter().cloned().chain(names()).chain(processes).find(|path| is_it(path)).map(Some)
    }
}

fn namespace(name: &str, path: Option<PathBuf>) -> Namespace {
    Namespace { name: name.to_owned(), path, wire: false }
}

/// The cookie of the namespace that the calling thread is in; none where the kernel has none.
fn cookie() -> io::Result<Option<u64>> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    match sockopt::get(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE) {
        Ok(cookie) => Ok(Some(cookie)),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error),
    }
}
