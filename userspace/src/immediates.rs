//! Writes the configuration into the instructions of the kernel object, as the operands that programs would otherwise
//! load from a map each time: see [`PLACEHOLDER`].
//!
//! Needs: an ELF object. Yields: the same object, of which every placeholder is replaced.

use nettrace_common::config::{ABSENT, ASKED, Config, Offsets, PLACEHOLDER};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf::SHF_EXECINSTR};
use std::{collections::HashMap, mem::offset_of};

/// `r = imm`, with the operand's sign in the upper half of the register (RFC 9669, 4.1).
const MOV64_IMM: u8 = 0xb7;
/// `w = imm`, with zero there.
const MOV32_IMM: u8 = 0xb4;
/// `r = imm64`, which takes two slots.
const LD_IMM64: u8 = 0x18;
/// Bytes of an instruction.
const SLOT: usize = 8;

/// Why an object cannot be treated.
#[derive(Debug, thiserror::Error)]
pub enum ImmediateError {
    /// No ELF object.
    #[error("the kernel object is damaged: {0}")]
    Object(#[from] object::Error),
    /// A placeholder beyond the configuration: object and configuration are of different builds.
    #[error("the kernel object asks for byte {at} of a configuration of {len} bytes")]
    Offset {
        /// What it asks for.
        at: usize,
        /// What there is.
        len: usize,
    },
}

/// Replaces all placeholders of an object; yields how many there were.
///
/// # Errors
/// See [`ImmediateError`].
pub fn write(object: &mut [u8], config: &Config) -> Result<usize, ImmediateError> {
    let sections: Vec<(u64, u64)> = object::File::parse(&*object)?
        .sections()
        .filter(|s| {
            matches!(s.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_EXECINSTR) != 0)
        })
        .filter_map(|s| s.file_range())
        .collect();
    let config = bytes(config);
    let mut written = 0;
    for (start, len) in sections {
        // `file_range` was checked against the file's length by nobody.
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)).min(object.len());
        let code = object.get_mut(start..end).unwrap_or_default();
        written += write_code(code, config)?;
    }
    Ok(written)
}

fn write_code(code: &mut [u8], config: &[u8]) -> Result<usize, ImmediateError> {
    let found = placeholders(code);
    for placeholder in &found {
        let value = member(config, placeholder.at)?;
        let slot = &mut code[placeholder.slot * SLOT..][..SLOT];
        slot[0] = MOV32_IMM;
        slot[4..].copy_from_slice(&value);
    }
    Ok(found.len())
}

fn member(config: &[u8], at: usize) -> Result<[u8; 4], ImmediateError> {
    let bytes = config.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(ImmediateError::Offset { at, len: config.len() })
}

/// An instruction whose operand is to be replaced.
struct Placeholder {
    /// Which one, in slots.
    slot: usize,
    /// The member's offset in the configuration, bytes.
    at: usize,
    /// Whether the program asks if it is known.
    asked: bool,
}

fn placeholders(code: &[u8]) -> Vec<Placeholder> {
    let mut found = Vec::new();
    let mut slots = code.chunks_exact(SLOT).enumerate();
    while let Some((number, slot)) = slots.next() {
        if slot[0] == LD_IMM64 {
            slots.next();
            continue;
        }
        let operand = u32::from_le_bytes([slot[4], slot[5], slot[6], slot[7]]);
        if slot[0] == MOV64_IMM && operand & 0xffff_0000 == PLACEHOLDER {
            let (at, asked) = ((operand & (ASKED - 1)) as usize, operand & ASKED != 0);
            found.push(Placeholder { slot: number, at, asked });
        }
    }
    found
}

/// Programs of an object that read members which are [`ABSENT`] and do not ask; for each, such a member's offset in the
/// configuration, bytes. The verifier would refuse some of them, and others would read at a wrong place.
///
/// What programs call is not looked at: functions that they share are given what a program has, or nothing.
///
/// # Errors
/// See [`ImmediateError`].
pub fn lacking(object: &[u8], config: &Config) -> Result<HashMap<String, usize>, ImmediateError> {
    const OFFSETS: usize = offset_of!(Config, offsets);
    let config = bytes(config);
    let file = object::File::parse(object)?;
    let mut lacking = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index() else { continue };
        let code = file.section_by_index(section)?.data()?;
        let start = usize::try_from(symbol.address()).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(symbol.size()).unwrap_or(usize::MAX));
        for placeholder in placeholders(code.get(start..end).unwrap_or_default()) {
            let is_offset = (OFFSETS..OFFSETS + size_of::<Offsets>()).contains(&placeholder.at);
            if is_offset && !placeholder.asked && member(config, placeholder.at)? == ABSENT.to_le_bytes() {
                lacking.insert(symbol.name()?.to_owned(), placeholder.at);
                break;
            }
        }
    }
    Ok(lacking)
}

fn bytes(config: &Config) -> &[u8] {
    // SAFETY: `Config` is `repr(C)` and without padding, which a constant in its module asserts.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(config).cast(), size_of::<Config>()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::OBJECT;

    #[test]
    fn every_placeholder_of_the_object_is_replaced() {
        let mut object = OBJECT.to_vec();
        let first = write(&mut object, &Config::NONE).unwrap();
        assert!(first > 50, "{first}");
        assert_eq!(write(&mut object, &Config::NONE).unwrap(), 0);
    }

    #[test]
    fn operands_are_replaced_and_constants_are_not() {
        let mut config = [0; 16];
        config[8..12].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        let asked = (PLACEHOLDER | 8).to_le_bytes();
        let slot = |code: u8, imm: [u8; 4]| [code, 3, 0, 0, imm[0], imm[1], imm[2], imm[3]];
        let constant = [slot(LD_IMM64, [1; 4]), slot(MOV64_IMM, asked)].concat();
        let mut code = [&constant[..], &slot(MOV64_IMM, [8, 0, 0, 0]), &slot(MOV64_IMM, asked)].concat();
        assert_eq!(write_code(&mut code, &config).unwrap(), 1);
        assert_eq!(code[..16], constant[..]);
        assert_eq!(code[16..24], slot(MOV64_IMM, [8, 0, 0, 0]));
        assert_eq!(code[24..], slot(MOV32_IMM, [0xf0, 0xff, 0xff, 0xff]));
    }

    #[test]
    fn what_reads_no_kernel_structure_lacks_nothing() {
        let lacking = lacking(OBJECT, &Config::NONE).unwrap();
        for name in
            ["softirq_raise_raw", "softirq_entry_raw", "wire_in", "wire_out", "wire_xdp", "nf_hook_end"]
        {
            assert!(!lacking.contains_key(name), "{name}");
        }
        for name in
            ["tcp_state", "tcp_state_raw", "drop_skb_raw", "nf_hook_begin_kprobe", "tx_queue", "rx_receive"]
        {
            assert!(lacking.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_program_may_ask_for_what_is_absent() {
        let mut config = Config::NONE;
        config.offsets = Offsets {
            skb_tstamp_type: ABSENT,
            icsk_ca_state: ABSENT,
            dev_qdisc: ABSENT,
            tp_chrono_start: ABSENT,
            tp_chrono_stat: ABSENT,
            tp_chrono_type: ABSENT,
            ..every(8)
        };
        assert_eq!(lacking(OBJECT, &config).unwrap(), HashMap::new());
        config.offsets.tp_srtt_us = ABSENT;
        let lacking = lacking(OBJECT, &config).unwrap();
        assert_eq!(lacking.get("tcp_state_raw"), Some(&offset_of!(Config, offsets.tp_srtt_us)));
        assert!(lacking.contains_key("tx_queue") && !lacking.contains_key("rx_receive"));
    }

    /// All members at one offset.
    fn every(offset: u32) -> Offsets {
        let words = [offset; size_of::<Offsets>() / 4];
        // SAFETY: `Offsets` is `repr(C)` and of nothing but so many `u32`.
        unsafe { std::mem::transmute(words) }
    }

    #[test]
    fn an_object_of_another_build_is_refused() {
        let mut code = [MOV64_IMM, 0, 0, 0, 0, 0, 0, 0];
        code[4..].copy_from_slice(&(PLACEHOLDER | 13).to_le_bytes());
        let error = write_code(&mut code, &[0; 16]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel object asks for byte 13 of a configuration of 16 bytes");
        assert!(write(&mut [0; 4], &Config::NONE).is_err());
    }
}
