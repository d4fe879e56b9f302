//! Files that are either as they were or as they are to be.

use rustix::{
    fs::{CWD, Mode, OFlags, XattrFlags, fsetxattr, getxattr, listxattr, openat},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// The most that all names of a file's attributes, or one value, can be (XATTR_LIST_MAX, XATTR_SIZE_MAX), bytes.
const MOST_XATTR_BYTES: usize = 64 << 10;

/// Where the new file is until it takes the other's place.
fn new_name(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".nettrace-new");
    Some(path.with_file_name(name))
}

/// Takes away what a process that was killed left of a new file.
pub(super) fn tidy(path: &Path) {
    // Mostly there is none.
    let _ = new_name(path).map(fs::remove_file);
}

/// Puts a file in the place of another, with its owner, mode and attributes (of SELinux, too) if there is one, else with this
/// mode.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = new_name(path).ok_or(io::ErrorKind::InvalidInput)?;
    let before = fs::metadata(path).ok();
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        if let Some(before) = &before {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
            file.set_permissions(fs::Permissions::from_mode(before.mode()))?;
            copy_attributes(path, &file)?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))?;
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Gives a new file the extended attributes of the one whose place it takes.
fn copy_attributes(from: &Path, to: &File) -> io::Result<()> {
    let mut names = vec![0; MOST_XATTR_BYTES];
    let length = match listxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for name in names.get(..length).unwrap_or_default().split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MOST_XATTR_BYTES];
        let length = getxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(())
}

/// Has the names in a directory on disk.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(dir).sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_the_attributes_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let named = rustix::fs::setxattr(&file, "user.nettrace", b"mine", XattrFlags::empty());
        replace(&file, b"new", 0o644).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        if named == Err(Errno::NOTSUP) {
            println!("skipped: this file system has no attributes");
            return;
        }
        let mut value = [0; 16];
        assert_eq!(getxattr(&file, "user.nettrace", &mut value), Ok(4));
        assert_eq!(&value[..4], b"mine");
    }
}
