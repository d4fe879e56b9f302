//! Which labs there are on this machine, and which of them are dead.
//!
//! A lab holds an exclusive lock on its file `/run/nettrace/lab-ID.json` for as long as it lives, and every namespace
//! of its is called `nettrace-ID-ROLE`. A file that nobody has locked is thus the leftover of a lab that was killed,
//! and names exactly what is to be removed. The directory is locked while a file is made or leftovers are swept, so
//! that a file is never seen before it is locked.

use super::{LabError, netns, topology};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the state files are.
pub const STATE_DIR: &str = "/run/nettrace";

/// The state file of a living lab; dropping it removes the file, so it has to go last.
#[derive(Debug)]
pub(super) struct State {
    id: String,
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl State {
    /// Sweeps what dead labs left behind, then registers a new one.
    pub(super) fn register() -> Result<Self, LabError> {
        fs::create_dir_all(STATE_DIR).map_err(LabError::file("create", STATE_DIR))?;
        let _dir = lock_dir()?;
        for id in sweep()? {
            tracing::info!(id, "removed what a lab that was killed left behind");
        }
        let id = new_id();
        let path = Path::new(STATE_DIR).join(format!("lab-{id}.json"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(LabError::file("create", &path))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(LabError::file("lock", &path))?;
        let names: Vec<_> = topology::ROLE_NAMES.iter().map(|role| netns_name(&id, role)).collect();
        let text = serde_json::json!({
            "version": 1,
            "id": id,
            "pid": std::process::id(),
            "namespaces": names,
        });
        writeln!(file, "{text}").map_err(LabError::file("write", &path))?;
        Ok(Self { id, path, _lock: file })
    }

    /// The lab's id, unique among all labs of this machine.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Where the state is kept.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory for what else belongs to the lab: made by who needs it, removed with the lab.
    pub(super) fn directory(&self) -> PathBuf {
        directory_of(&self.id)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A namespace that could not be removed stays on record, for the next start to remove it.
        if topology::ROLE_NAMES.iter().any(|role| netns::exists(&netns_name(&self.id, role))) {
            return;
        }
        if let Err(error) = remove_directory(&self.id) {
            tracing::warn!(%error, "the lab's directory could not be removed");
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the lab's state file could not be removed");
        }
    }
}

/// Removes what labs that were killed left behind, and nothing else. Yields their ids.
///
/// # Errors
/// [`LabError::File`] when a leftover cannot be read or removed.
pub fn remove_leftovers() -> Result<Vec<String>, LabError> {
    if !Path::new(STATE_DIR).exists() {
        return Ok(Vec::new());
    }
    let _dir = lock_dir()?;
    sweep()
}

/// Name of a lab's namespace.
pub(super) fn netns_name(id: &str, role: &str) -> String {
    format!("nettrace-{id}-{role}")
}

fn directory_of(id: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("lab-{id}.d"))
}

/// One that was never made is not an error.
fn remove_directory(id: &str) -> Result<(), LabError> {
    let path = directory_of(id);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn lock_dir() -> Result<File, LabError> {
    let dir = File::open(STATE_DIR).map_err(LabError::file("open", STATE_DIR))?;
    flock(&dir, FlockOperation::LockExclusive).map_err(LabError::file("lock", STATE_DIR))?;
    Ok(dir)
}

/// The caller holds the lock of the directory.
fn sweep() -> Result<Vec<String>, LabError> {
    let mut swept = Vec::new();
    for entry in fs::read_dir(STATE_DIR).map_err(LabError::file("read", STATE_DIR))? {
        let path = entry.map_err(LabError::file("read", STATE_DIR))?.path();
        let Some(id) = id_of(&path) else { continue };
        let file = match File::open(&path) {
            Ok(file) => file,
            // Its lab ended meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(LabError::file("open", path)(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => continue,
            Err(errno) => return Err(LabError::file("lock", path)(errno)),
        }
        for role in topology::ROLE_NAMES {
            netns::remove_name(&netns_name(&id, role))?;
        }
        remove_directory(&id)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LabError::file("remove", path)(error));
            }
            _ => swept.push(id),
        }
    }
    Ok(swept)
}

/// The id in a state file's name; only what [`new_id`] makes is one, so that a stray file never names a path.
fn id_of(path: &Path) -> Option<String> {
    let id = path.file_name()?.to_str()?.strip_prefix("lab-")?.strip_suffix(".json")?;
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    let (pid, token) = id.split_once('-')?;
    (plain(pid) && plain(token)).then(|| id.to_owned())
}

/// The process and a random token: a pid alone comes back.
fn new_id() -> String {
    let token = RandomState::new().build_hasher().finish() >> 32;
    format!("{}-{token:08x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_stray_files() {
        let id = new_id();
        assert_eq!(id_of(Path::new(&format!("/run/nettrace/lab-{id}.json"))), Some(id));
        for stray in ["lab-.json", "lab-1-.json", "lab-1-..json", "lab-1.json", "journal.json", "lab-1-a.tmp"]
        {
            assert_eq!(id_of(Path::new(stray)), None, "{stray}");
        }
    }
}
