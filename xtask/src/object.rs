//! What a kernel object has to be before it may be kept.

use anyhow::{Context as _, Result, bail};
use object::{Architecture, Object as _, ObjectSection as _, SectionKind};

/// What is in an object.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Sections with programs.
    pub(crate) programs: usize,
    /// Bytes of type information.
    pub(crate) btf: u64,
}

/// Checks that this is a BPF object with programs and type information, and that it names none of the directories.
pub(crate) fn check(bytes: &[u8], machine_paths: &[String]) -> Result<Summary> {
    let file = object::File::parse(bytes).context("not an object file")?;
    if file.architecture() != Architecture::Bpf {
        bail!("made for {:?}, not for BPF", file.architecture());
    }
    let btf = file.section_by_name(".BTF").map_or(0, |section| section.size());
    if btf == 0 {
        bail!("no .BTF section: the kernel could not check it and aya could not load it");
    }
    let is_program =
        |section: &object::Section<'_, '_>| section.kind() == SectionKind::Text && section.size() > 0;
    let programs = file.sections().filter(is_program).count();
    if programs == 0 {
        bail!("no programs in it");
    }
    let contains = |path: &&String| {
        let path = path.as_bytes();
        bytes.windows(path.len()).any(|window| window == path)
    };
    if let Some(path) = machine_paths.iter().filter(|path| path.len() > 1).find(contains) {
        bail!("it names the directory {path} of this machine");
    }
    Ok(Summary { programs, btf })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian ELF file with one section besides its names.
    fn elf(machine: u16, name: &str, flags: u64, content: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0.shstrtab\0");
        let (names_at, content_at) = (64_u64, 64 + names.len() as u64);
        let table_at = content_at + content.len() as u64;
        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0".to_vec();
        out.extend(machine.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        out.extend([0; 16]);
        out.extend(table_at.to_le_bytes());
        out.extend([0; 4]);
        for field in [64_u16, 0, 0, 64, 3, 2] {
            out.extend(field.to_le_bytes());
        }
        out.extend(names.as_bytes());
        out.extend(content);
        out.extend([0; 64]);
        let mut section = |name: u32, kind: u32, flags: u64, at: u64, size: u64| {
            out.extend(name.to_le_bytes());
            out.extend(kind.to_le_bytes());
            for field in [flags, 0, at, size, 0, 1, 0] {
                out.extend(field.to_le_bytes());
            }
        };
        section(1, 1, flags, content_at, content.len() as u64);
        section(2 + name.len() as u32, 3, 0, names_at, names.len() as u64);
        out
    }

    fn complaint(bytes: &[u8], paths: &[&str]) -> String {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        check(bytes, &paths).map_or_else(|e| format!("{e:#}"), |summary| format!("{summary:?}"))
    }

    #[test]
    fn only_bpf_objects_with_types_and_programs_pass() {
        const BPF: u16 = 247;
        const X86_64: u16 = 62;
        assert!(complaint(b"text", &[]).contains("not an object file"));
        assert!(complaint(&elf(X86_64, ".BTF", 0, b"x"), &[]).contains("not for BPF"));
        assert!(complaint(&elf(BPF, ".text", 6, b"x"), &[]).contains("no .BTF"));
        assert!(complaint(&elf(BPF, ".BTF", 0, b""), &[]).contains("no .BTF"));
        assert!(complaint(&elf(BPF, ".BTF", 0, b"x"), &[]).contains("no programs"));
        // A section that is both, to keep the file above small.
        let good = elf(BPF, ".BTF", 6, b"at /src/tree/x.rs");
        assert!(complaint(&good, &["/elsewhere", ""]).contains("programs: 1"));
        assert!(complaint(&good, &["/src/tree"]).contains("names the directory /src/tree"));
    }
}
