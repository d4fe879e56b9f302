//! Whether the kept kernel objects belong to the sources beside them.
//!
//! `userspace/bpf/SOURCES.sha256` holds one hash over everything that determines the objects and one for each
//! object, so that neither a changed source nor a changed object goes unnoticed.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::workspace;

/// File name of the manifest.
pub(crate) const MANIFEST: &str = "SOURCES.sha256";
/// What determines the objects: files, and directories taken whole.
const INPUTS: [&str; 4] = ["common/Cargo.toml", "common/src", "ebpf/Cargo.toml", "ebpf/src"];
/// Name of the line that is not about an object.
const SOURCES: &str = "sources";

/// The content of `SOURCES.sha256`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Hash over the sources.
    sources: String,
    /// File name and hash of each object.
    objects: Vec<(String, String)>,
}

impl Manifest {
    /// The manifest that would be right for the files as they are now.
    pub(crate) fn of_files(root: &Path, kept: &Path) -> Result<Self> {
        let objects = workspace::ARCHES.map(|arch| {
            let name = workspace::object_name(arch);
            let bytes = fs::read(kept.join(&name)).with_context(|| {
                format!("cannot read userspace/bpf/{name}; build it with `cargo xtask build-ebpf`")
            })?;
            Ok((name, hex(&Sha256::digest(bytes))))
        });
        Ok(Self { sources: hash_sources(root)?, objects: objects.into_iter().collect::<Result<_>>()? })
    }

    fn parse(text: &str) -> Result<Self> {
        let mut sources = None;
        let mut objects = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once("  ") {
                Some((hash, SOURCES)) => sources = Some(hash.to_owned()),
                Some((hash, name)) => objects.push((name.to_owned(), hash.to_owned())),
                None => bail!("{MANIFEST}: cannot read the line `{line}`"),
            }
        }
        let sources = sources.with_context(|| format!("{MANIFEST}: there is no line `{SOURCES}`"))?;
        Ok(Self { sources, objects })
    }

    /// What is wrong with the kept files, given the manifest that describes them as they are.
    fn complaint(&self, actual: &Self) -> Option<String> {
        if self.sources != actual.sources {
            return Some("the kept kernel objects are older than their sources (ebpf/, common/)".to_owned());
        }
        let wrong = actual.objects.iter().find(|object| !self.objects.contains(object))?;
        Some(format!("userspace/bpf/{} is not the one that {MANIFEST} names", wrong.0))
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask build-ebpf`, checked by `cargo xtask lint`.")?;
        writeln!(f, "{}  {SOURCES}", self.sources)?;
        self.objects.iter().try_for_each(|(name, hash)| writeln!(f, "{hash}  {name}"))
    }
}

/// Fails when the kept objects do not belong to the sources.
pub(crate) fn verify(root: &Path, kept: &Path) -> Result<()> {
    let text = fs::read_to_string(kept.join(MANIFEST))
        .with_context(|| format!("cannot read userspace/bpf/{MANIFEST}; run `cargo xtask build-ebpf`"))?;
    match Manifest::parse(&text)?.complaint(&Manifest::of_files(root, kept)?) {
        Some(complaint) => bail!("{complaint}; run `cargo xtask build-ebpf` and commit userspace/bpf"),
        None => Ok(()),
    }
}

/// One hash over all inputs: for each file, in the order of the paths, its path, its length and its content.
fn hash_sources(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for input in INPUTS {
        for entry in WalkDir::new(root.join(input)) {
            let entry = entry.with_context(|| format!("cannot list {input}"))?;
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if entry.file_type().is_file() && !is_hidden {
                files.push(entry.into_path());
            }
        }
    }
    let mut named = Vec::with_capacity(files.len());
    for file in files {
        let relative = file.strip_prefix(root).unwrap_or(&file);
        let name = relative.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
        named.push((name.to_owned(), file));
    }
    named.sort();
    let mut hash = Sha256::new();
    for (name, file) in named {
        let content = fs::read(&file).with_context(|| format!("cannot read {name}"))?;
        // Lengths keep a shift of bytes between path and content from going unnoticed.
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A repository with sources, objects and a manifest that fits them.
    fn fresh() -> TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        for sub in ["common/src/probes", "ebpf/src", "kept"] {
            fs::create_dir_all(root.join(sub)).expect("a directory");
        }
        for (path, content) in [
            ("common/Cargo.toml", "a"),
            ("common/src/lib.rs", "b"),
            ("common/src/probes/dns.rs", "c"),
            ("ebpf/Cargo.toml", "d"),
            ("ebpf/src/main.rs", "e"),
            ("kept/nettrace.x86_64.bpf.o", "f"),
            ("kept/nettrace.aarch64.bpf.o", "g"),
        ] {
            fs::write(root.join(path), content).expect("a file");
        }
        let manifest = Manifest::of_files(root, &root.join("kept")).expect("readable files");
        fs::write(root.join("kept").join(MANIFEST), manifest.to_string()).expect("a file");
        dir
    }

    fn verdict(dir: &TempDir) -> String {
        match verify(dir.path(), &dir.path().join("kept")) {
            Ok(()) => "fresh".to_owned(),
            Err(e) => format!("{e:#}"),
        }
    }

    #[test]
    fn unchanged_files_are_fresh() {
        assert_eq!(verdict(&fresh()), "fresh");
    }

    #[test]
    fn every_way_to_change_a_source_is_stale() {
        type Change = (&'static str, fn(&Path));
        let changes: [Change; 4] = [
            ("edited", |root| fs::write(root.join("ebpf/src/main.rs"), "E").expect("a file")),
            ("added", |root| fs::write(root.join("common/src/probes/tcp.rs"), "").expect("a file")),
            ("renamed", |root| {
                fs::rename(root.join("common/src/lib.rs"), root.join("common/src/bil.rs")).expect("a rename");
            }),
            ("removed", |root| fs::remove_file(root.join("common/src/probes/dns.rs")).expect("a removal")),
        ];
        for (name, change) in changes {
            let dir = fresh();
            change(dir.path());
            assert!(verdict(&dir).contains("older than their sources"), "{name}: {}", verdict(&dir));
        }
    }

    #[test]
    fn bytes_cannot_move_between_files_unnoticed() {
        let dir = fresh();
        fs::write(dir.path().join("common/Cargo.toml"), "ab").expect("a file");
        fs::write(dir.path().join("common/src/lib.rs"), "").expect("a file");
        assert!(verdict(&dir).contains("older"));
    }

    #[test]
    fn hidden_files_of_editors_do_not_count() {
        let dir = fresh();
        fs::write(dir.path().join("ebpf/src/.main.rs.swp"), "x").expect("a file");
        assert_eq!(verdict(&dir), "fresh");
    }

    #[test]
    fn a_changed_or_missing_object_is_named() {
        let dir = fresh();
        fs::write(dir.path().join("kept/nettrace.aarch64.bpf.o"), "G").expect("a file");
        assert!(verdict(&dir).contains("nettrace.aarch64.bpf.o is not the one"));
        fs::remove_file(dir.path().join("kept/nettrace.x86_64.bpf.o")).expect("a removal");
        assert!(verdict(&dir).contains("cannot read userspace/bpf/nettrace.x86_64.bpf.o"));
    }

    #[test]
    fn a_manifest_survives_its_own_text_and_nothing_else_passes() {
        let manifest = Manifest { sources: "00".into(), objects: vec![("x.o".into(), "11".into())] };
        assert_eq!(Manifest::parse(&manifest.to_string()).expect("our own text"), manifest);
        assert!(Manifest::parse("").is_err());
        assert!(Manifest::parse("nonsense").is_err());
    }
}
