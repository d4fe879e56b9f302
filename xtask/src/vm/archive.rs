//! An initial file system for Linux: an archive of files that the kernel unpacks into memory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use cpio::newc::{self, ModeFileType};
use walkdir::WalkDir;

use crate::process;

/// An archive being written.
pub(super) struct Archive {
    out: BufWriter<File>,
    path: PathBuf,
    /// What is in it; the kernel takes a second entry of a name for an error.
    present: BTreeSet<PathBuf>,
}

impl Archive {
    /// Begins a file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self { out: BufWriter::new(file), path: path.to_owned(), present: BTreeSet::new() })
    }

    /// Ends it. Archives written one after the other into one file are one file system.
    pub(super) fn finish(self) -> Result<()> {
        let mut out = newc::trailer(self.out)?;
        out.flush().with_context(|| self.path.display().to_string())
    }

    /// Adds a directory, and those that it is in.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        let path = in_guest(Path::new(path));
        self.parents(&path.join("something in it"))
    }

    /// Adds a file, and the directories that it is in.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(&in_guest(Path::new(path)), ModeFileType::Regular, mode, content)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        // Not through `in_guest`, because links stand for the directories that it replaces.
        self.entry(Path::new(path), ModeFileType::Symlink, 0o777, target.as_bytes())
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        let path = Path::new(path);
        self.parents(path)?;
        let entry = newc::Builder::new(&name(path)).mode(0o600).set_mode_file_type(ModeFileType::Char);
        self.write(entry.rdev_major(major).rdev_minor(minor), &[])
    }

    /// Adds a program or library of this machine at its own place, with the libraries that it needs.
    pub(super) fn program(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        for library in libraries(path)? {
            self.copy(&library)?;
        }
        Ok(())
    }

    /// Adds a file of this machine at its own place; what a link points to stands for the link.
    pub(super) fn copy(&mut self, path: &Path) -> Result<()> {
        self.copy_to(path, path)
    }

    /// Adds a file of this machine at another place.
    pub(super) fn copy_to(&mut self, path: &Path, place: &Path) -> Result<()> {
        let context = || path.display().to_string();
        let mode = fs::metadata(path).with_context(context)?.permissions().mode();
        let content = fs::read(path).with_context(context)?;
        self.file(&place.to_string_lossy(), mode & 0o777, &content)
    }

    /// Adds the files of a directory of this machine and those below it, if there is one.
    pub(super) fn tree(&mut self, dir: &Path) -> Result<()> {
        for entry in WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.path().is_file()) {
            self.copy(entry.path())?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(path)?;
        if !self.present.insert(path.to_owned()) {
            return Ok(());
        }
        self.write(newc::Builder::new(&name(path)).mode(mode).set_mode_file_type(kind), content)
    }

    /// The kernel makes no directory by itself.
    fn parents(&mut self, path: &Path) -> Result<()> {
        let parents: Vec<_> = path.ancestors().skip(1).filter(|dir| dir.parent().is_some()).collect();
        for dir in parents.into_iter().rev() {
            if self.present.insert(dir.to_owned()) {
                let entry = newc::Builder::new(&name(dir)).mode(0o755);
                self.write(entry.set_mode_file_type(ModeFileType::Directory), &[])?;
            }
        }
        Ok(())
    }

    fn write(&mut self, entry: newc::Builder, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).context("a file of more than 4 GiB")?;
        let mut writer = entry.nlink(1).write(&mut self.out, size);
        writer.write_all(content).with_context(|| self.path.display().to_string())?;
        writer.finish()?;
        Ok(())
    }
}

/// Names in the archive are without the leading slash.
fn name(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned()
}

/// Where a path of this machine is in the guest, where `/bin`, `/sbin` and `/lib` are links into `/usr` as on any
/// current distribution, whether they are so here or not.
fn in_guest(path: &Path) -> PathBuf {
    let mut components = path.components().skip_while(|component| *component == Component::RootDir);
    let merged = components
        .clone()
        .next()
        .is_some_and(|first| ["bin", "sbin", "lib", "lib64"].iter().any(|name| first.as_os_str() == *name));
    let root = Path::new(if merged { "/usr" } else { "/" });
    components.try_fold(root.to_owned(), |path, component| Some(path.join(component))).unwrap_or_default()
}

/// The libraries that a program needs, as the dynamic linker finds them here.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut cmd = Command::new("ldd");
    let out = process::output(cmd.arg(program))?;
    if !out.status.success() {
        // The libraries themselves are to blame for nothing: this is what `ldd` says of static programs.
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), line.trim());
    }
    Ok(linked(&text))
}

/// The paths in what `ldd` prints: `name => path (address)` or `path (address)`.
fn linked(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let path = line.rsplit("=> ").next()?.trim().split(' ').next()?;
        path.starts_with('/').then(|| path.into())
    };
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f2b)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2c)\n";
        let expected =
            ["/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(linked(text), expected);
        assert_eq!(linked("\tstatically linked\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn places_are_below_usr_where_the_guest_has_links() {
        assert_eq!(in_guest(Path::new("/lib/x/libc.so.6")), Path::new("/usr/lib/x/libc.so.6"));
        assert_eq!(in_guest(Path::new("/usr/sbin/ip")), Path::new("/usr/sbin/ip"));
        assert_eq!(in_guest(Path::new("/etc/protocols")), Path::new("/etc/protocols"));
    }

    #[test]
    fn an_archive_has_every_directory_once_and_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("archive");
        let mut archive = Archive::create(&path).expect("writable");
        archive.file("/a/b/one", 0o644, b"1").expect("written");
        archive.file("/a/b/two", 0o755, b"22").expect("written");
        archive.file("/a/b/two", 0o755, b"again").expect("left out");
        archive.link("/bin", "usr/bin").expect("written");
        archive.directory("/a/c").expect("written");
        archive.finish().expect("written");
        let mut rest = fs::read(&path).expect("readable");
        let mut names = Vec::new();
        loop {
            let reader = newc::Reader::new(rest.as_slice()).expect("well formed");
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode() & 0o170_000));
            rest = reader.finish().expect("well formed").to_vec();
        }
        let expected = [
            ("a", 0o040_000),
            ("a/b", 0o040_000),
            ("a/b/one", 0o100_000),
            ("a/b/two", 0o100_000),
            ("bin", 0o120_000),
            ("a/c", 0o040_000),
        ];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
