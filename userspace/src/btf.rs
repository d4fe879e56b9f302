//! Reads the kernel's BTF: where a structure's member lies, what an enum's values are called, how many arguments a
//! tracepoint has. Rust cannot emit CO-RE relocations, so this is how programs learn the kernel's layout.
//!
//! Source: Documentation/bpf/btf.rst.

use std::{fs, io, path::Path};

/// Where the running kernel's own BTF is.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why what needs BTF cannot be had where there is none.
pub const NONE: &str = "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)";

/// Why BTF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read kernel type information at {path}: {error}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The bytes are not BTF.
    #[error("kernel type information is malformed: {0} at byte {1}")]
    Malformed(&'static str, usize),
}

/// A member's place in its outermost structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bits from the structure's start.
    pub bit_offset: u32,
    /// Width of a bit field; 0 for whole bytes.
    pub bits: u32,
}

impl Member {
    /// Bytes from the structure's start (of the byte that holds it, for a bit field).
    #[must_use]
    pub const fn byte(self) -> u32 {
        self.bit_offset / 8
    }

    /// For a bit field within one byte: its mask there.
    #[must_use]
    pub const fn mask(self) -> u32 {
        ((1 << self.bits) - 1) << (self.bit_offset % 8)
    }
}

/// One BTF object.
pub struct Btf {
    raw: Vec<u8>,
    strings: usize,
    /// Of a module's strings: the offset from which on they are, and where that is in `raw`.
    module_strings: Option<(usize, usize)>,
    /// Offset of each type in `raw`, by id; id 0 is void.
    types: Vec<usize>,
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNC: u32 = 12;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Members nest at most so deep; deeper is malformed.
const MAX_DEPTH: u32 = 32;
const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;

impl Btf {
    /// From a file, or none where there is no such file: a kernel without CONFIG_DEBUG_INFO_BTF.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn open_if_there(path: &Path) -> Result<Option<Self>, BtfError> {
        match Self::open(path) {
            Err(BtfError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// From a file.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn open(path: &Path) -> Result<Self, BtfError> {
        Self::parse(read(path)?)
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not well-formed BTF of this machine's byte order.
    pub fn parse(raw: Vec<u8>) -> Result<Self, BtfError> {
        let Sections { start, end, strings, .. } = sections(&raw)?;
        let mut types = vec![0];
        walk(&raw, start, end, &mut types)?;
        Ok(Self { raw, strings, module_strings: None, types })
    }

    /// These types and a module's, which are numbered from the last of these on, and whose strings go on from theirs.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed, or these types are joined to a module's already.
    pub fn with_module(&self, path: &Path) -> Result<Self, BtfError> {
        self.joined(&read(path)?)
    }

    fn joined(&self, module: &[u8]) -> Result<Self, BtfError> {
        if self.module_strings.is_some() {
            return Err(BtfError::Malformed("a module of a module", 0));
        }
        let strings_len = sections(&self.raw)?.strings_len;
        let Sections { start, end, strings, .. } = sections(module)?;
        let base = self.raw.len();
        let raw = [self.raw.as_slice(), module].concat();
        let mut types = self.types.clone();
        walk(&raw, base + start, base + end, &mut types)?;
        Ok(Self { raw, strings: self.strings, module_strings: Some((strings_len, base + strings)), types })
    }

    /// Where a member is: `sock.__sk_common.skc_dport`. Anonymous structures and unions are looked into; an element
    /// of the path may go through a structure held by value only.
    #[must_use]
    pub fn member(&self, path: &str) -> Option<Member> {
        let mut parts = path.split('.');
        let mut id = self.find(parts.next()?, |k| k == kind::STRUCT || k == kind::UNION)?;
        let mut found = Member { bit_offset: 0, bits: 0 };
        for part in parts {
            let (bit_offset, bits, of) = self.member_of(self.resolve(id)?, part, 0)?;
            found = Member { bit_offset: found.bit_offset.checked_add(bit_offset)?, bits };
            id = of;
        }
        Some(found)
    }

    /// Names and values of an enum, in its order.
    #[must_use]
    pub fn enum_values(&self, name: &str) -> Vec<(String, u64)> {
        let Some(id) = self.find(name, |k| k == kind::ENUM || k == kind::ENUM64) else { return Vec::new() };
        let (at, wide) = (self.types[id as usize], self.kind(id) == kind::ENUM64);
        let step = if wide { 12 } else { 8 };
        (0..self.vlen(id))
            .filter_map(|i| {
                let entry = at + TYPE_BYTES + step * i;
                let name = self.string(u32_at(&self.raw, entry)?)?.to_owned();
                let low = u64::from(u32_at(&self.raw, entry + 4)?);
                let high = if wide { u64::from(u32_at(&self.raw, entry + 8)?) } else { 0 };
                Some((name, high << 32 | low))
            })
            .collect()
    }

    /// How many arguments a tracepoint has for a BTF program; none when the kernel has no such tracepoint.
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        // typedef void (*btf_trace_NAME)(void *data, ...)
        let typedef = self.find(&format!("btf_trace_{name}"), |k| k == kind::TYPEDEF)?;
        let pointer = self.target(typedef)?;
        let proto = self.target(pointer)?;
        (self.kind(proto) == kind::FUNC_PROTO).then(|| self.vlen(proto).saturating_sub(1))
    }

    /// Whether the kernel has a function that a BTF program can be attached to.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.find(name, |k| k == kind::FUNC).is_some()
    }

    fn find(&self, name: &str, want: impl Fn(u32) -> bool) -> Option<u32> {
        // A walk over all types takes a millisecond; an index of their names, which a start needs some thirty times,
        // would take megabytes.
        (1..self.types.len() as u32).find(|id| want(self.kind(*id)) && self.name(*id) == Some(name))
    }

    fn info(&self, id: u32) -> u32 {
        self.types.get(id as usize).and_then(|at| u32_at(&self.raw, at + 4)).unwrap_or(0)
    }

    fn kind(&self, id: u32) -> u32 {
        if id == 0 { 0 } else { self.info(id) >> 24 & 0x1f }
    }

    fn vlen(&self, id: u32) -> usize {
        (self.info(id) & 0xffff) as usize
    }

    /// The type that a pointer, typedef or qualifier refers to.
    fn target(&self, id: u32) -> Option<u32> {
        u32_at(&self.raw, self.types.get(id as usize)? + 8)
    }

    fn name(&self, id: u32) -> Option<&str> {
        self.string(u32_at(&self.raw, *self.types.get(id as usize)?)?)
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let offset = offset as usize;
        let at = match self.module_strings {
            Some((first, at)) if offset >= first => at + (offset - first),
            _ => self.strings + offset,
        };
        let bytes = self.raw.get(at..)?;
        std::str::from_utf8(&bytes[..bytes.iter().position(|b| *b == 0)?]).ok()
    }

    /// Behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            match self.kind(id) {
                kind::TYPEDEF | kind::VOLATILE..=kind::RESTRICT | kind::TYPE_TAG => id = self.target(id)?,
                _ => return Some(id),
            }
        }
        None
    }

    /// Bit offset, bit-field width and type of a member.
    fn member_of(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32, u32)> {
        if depth > MAX_DEPTH || !matches!(self.kind(id), kind::STRUCT | kind::UNION) {
            return None;
        }
        let bit_fields = self.info(id) >> 31 != 0;
        for i in 0..self.vlen(id) {
            let at = self.types[id as usize] + TYPE_BYTES + 12 * i;
            let member = self.string(u32_at(&self.raw, at)?)?;
            let (of, place) = (u32_at(&self.raw, at + 4)?, u32_at(&self.raw, at + 8)?);
            let (offset, bits) = if bit_fields { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            if member == name {
                return Some((offset, bits, of));
            }
            if member.is_empty()
                && let Some((inner, bits, of)) = self.member_of(self.resolve(of)?, name, depth + 1)
            {
                return Some((offset.checked_add(inner)?, bits, of));
            }
        }
        None
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BtfError> {
    fs::read(path).map_err(|error| BtfError::Read { path: path.display().to_string(), error })
}

/// Where the two sections of BTF are, bytes from its start.
struct Sections {
    start: usize,
    end: usize,
    strings: usize,
    strings_len: usize,
}

fn sections(raw: &[u8]) -> Result<Sections, BtfError> {
    let magic = u16_at(raw, 0).ok_or(BtfError::Malformed("header cut off", 0))?;
    if magic != MAGIC {
        return Err(BtfError::Malformed("no BTF magic", 0));
    }
    let field = |at| u32_at(raw, at).map(|v| v as usize).ok_or(BtfError::Malformed("header cut off", at));
    let header = field(4)?;
    let (start, len) = (header + field(8)?, field(12)?);
    let (strings, strings_len) = (header + field(16)?, field(20)?);
    if start + len > raw.len() || strings + strings_len > raw.len() {
        return Err(BtfError::Malformed("section beyond the end", 8));
    }
    Ok(Sections { start, end: start + len, strings, strings_len })
}

/// Adds the offsets of all types.
fn walk(raw: &[u8], mut at: usize, end: usize, types: &mut Vec<usize>) -> Result<(), BtfError> {
    while at < end {
        let info = u32_at(raw, at + 4).ok_or(BtfError::Malformed("type cut off", at))?;
        let vlen = (info & 0xffff) as usize;
        let extra = match info >> 24 & 0x1f {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * vlen,
            kind::ENUM | kind::FUNC_PROTO => 8 * vlen,
            kind::PTR..=kind::ENUM64 => 0,
            _ => return Err(BtfError::Malformed("unknown kind of type", at)),
        };
        types.push(at);
        at += TYPE_BYTES + extra;
    }
    if at == end { Ok(()) } else { Err(BtfError::Malformed("type cut off", at)) }
}

fn u16_at(raw: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(raw.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(raw.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests;
