//! Loads the kernel object: configuration in, programs verified, maps ready. Nothing is attached yet.
//!
//! The object is built by `cargo xtask build-ebpf` and kept in the tree, so that a build needs stable Rust alone.

use crate::{
    attach::{Held, Queues},
    btf::{self, Btf},
    immediates::{self, ImmediateError},
    offsets,
    symbols::{Symbols, drop_reasons},
};
use aya::{
    Ebpf, EbpfLoader, Endianness,
    maps::{Array, MapError},
};
use std::{
    collections::{BTreeMap, HashMap},
    mem::offset_of,
    path::PathBuf,
    sync::Mutex,
};

use nettrace_common::{
    MAX_SCOPES, MIN_SCOPES, SCOPE_IGNORED, SCOPE_OTHER, Signal, WIRE_VERSION,
    config::{Config, Offsets, flag, state, wire},
    filter::Filter,
    hist::KernelHist,
    probes::dns,
};

#[cfg(target_arch = "x86_64")]
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/nettrace.x86_64.bpf.o"));
#[cfg(target_arch = "aarch64")]
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/nettrace.aarch64.bpf.o"));

/// The default of [`ProgramOptions::packets_per_second`]: what more would tell is little, and timing them would slow a CPU
/// down that is busy with small packets.
pub const PACKETS_PER_SECOND: u32 = 25_000;

/// Memory for all histograms of all CPUs, bytes, beyond which interfaces share them. With [`MIN_SCOPES`] they may take more.
const HIST_BYTES: usize = 64 << 20;

/// What the kernel programs are told.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    /// A latency from here on sends an exemplar, by signal, ns; `u64::MAX` for never.
    pub exemplar_ns: [u64; Signal::COUNT],
    /// One packet in so many is sent as a sample: 0 for none, 1 for every one.
    pub sample_every: u32,
    /// Of up to so many packets a second, each CPU times every one; of more, about so many, chosen evenly. 0 for no limit.
    pub packets_per_second: u32,
    /// Whether interfaces and namespaces that are not listed are measured too.
    pub others: bool,
    /// What programs at interfaces look for, see [`nettrace_common::config::wire`].
    pub wire: u32,
    /// Ports taken for DNS, at most four.
    pub dns_ports: Vec<u16>,
    /// Packet filter.
    pub filter: Filter,
    /// Bytes of the ring buffer: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Programs return at once: what the hooks alone cost (bench).
    pub empty: bool,
    /// Where the kernel's types are; nothing there is a kernel that was built without.
    pub btf: PathBuf,
}

impl Default for ProgramOptions {
    fn default() -> Self {
        Self {
            exemplar_ns: [1_000_000; Signal::COUNT],
            sample_every: 0,
            packets_per_second: PACKETS_PER_SECOND,
            others: true,
            wire: wire::ALL,
            dns_ports: vec![53],
            filter: Filter::default(),
            ring_bytes: 4 << 20,
            empty: false,
            btf: PathBuf::from(btf::VMLINUX),
        }
    }
}

/// Why the object cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// BTF that cannot be read.
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
    /// aya cannot read the kernel's BTF.
    #[error("cannot read kernel type information: {0}")]
    AyaBtf(#[from] aya::BtfError),
    /// The object in this program is not what was built.
    #[error(transparent)]
    Immediates(#[from] ImmediateError),
    /// The kernel refused maps or object.
    #[error("cannot load the kernel object: {0}")]
    Object(#[from] aya::EbpfError),
}

/// The object in the kernel.
pub struct Loaded {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// The kernel's names for drop reasons.
    pub reasons: BTreeMap<u32, String>,
    /// The kernel's names for places in its code, of those that were asked for.
    pub symbols: Mutex<Symbols>,
    /// Scopes that have histograms, from 0 on.
    pub scopes: u32,
    /// What programs look at while they run, see [`nettrace_common::config::state`].
    state: u32,
    /// What waits for a device with a queue.
    pub queues: Queues,
    /// Programs that stay at their hooks.
    pub kept: HashMap<&'static str, Held>,
    /// Programs that could not be attached while a capture ran, and why.
    pub failed: HashMap<&'static str, String>,
}

impl Loaded {
    /// Sets or clears a bit of the word that programs look at while they run, see [`nettrace_common::config::state`].
    ///
    /// # Errors
    /// When the map is not in the object or the kernel refuses.
    pub fn tell(&mut self, bit: u32, on: bool) -> Result<(), MapError> {
        self.tell_word(if on { self.state | bit } else { self.state & !bit })
    }

    /// Sets other limits: exemplars from 2^`exemplars` times their threshold on (63: none), and the budget of packets divided
    /// by 2^`packets`.
    ///
    /// # Errors
    /// When the map is not in the object or the kernel refuses.
    pub fn tell_limits(&mut self, exemplars: u32, packets: u32) -> Result<(), MapError> {
        self.tell_word(state::with_limits(self.state, exemplars, packets))
    }

    fn tell_word(&mut self, word: u32) -> Result<(), MapError> {
        self.state = word;
        let map =
            self.ebpf.map_mut("STATE").ok_or_else(|| MapError::InvalidName { name: "STATE".to_owned() })?;
        Array::try_from(map)?.set(0, word, 0)
    }
}

/// The kernel's types; large, and needed only until all programs are verified.
pub struct Types {
    /// For us; none where the kernel has none.
    pub btf: Option<Btf>,
    /// As aya wants them.
    pub aya: Option<aya::Btf>,
    /// Members that this kernel does not have.
    pub missing: Vec<&'static str>,
    /// Programs that are of no use on this kernel, and why.
    pub unusable: HashMap<String, String>,
}

/// Loads maps and prepares programs.
///
/// # Errors
/// When BTF is there and cannot be read, or the kernel refuses the object (privileges, memory).
pub fn load(options: &ProgramOptions) -> Result<(Loaded, Types), LoadError> {
    let btf = Btf::open_if_there(&options.btf)?;
    let resolved = offsets::resolve(btf.as_ref(), options.btf.parent().unwrap_or(&options.btf));
    let config = configure(options, btf.as_ref(), resolved.offsets);
    let unusable = unusable(&config, btf.is_some())?;
    let mut object = OBJECT.to_vec();
    immediates::write(&mut object, &config)?;
    let scopes = scopes(possible_cpus());
    let mut loader = EbpfLoader::new();
    // It has read the kernel's types on its own by now; they take tens of megabytes, so only one copy is kept.
    loader.btf(None);
    let aya_btf = match btf {
        Some(_) => Some(aya::Btf::parse_file(&options.btf, Endianness::default())?),
        None => None,
    };
    let ebpf = loader
        .btf(aya_btf.as_ref())
        .override_global("CONFIG", &config, true)
        .override_global("WIRE_VERSION", &WIRE_VERSION, true)
        .map_max_entries("EVENTS", options.ring_bytes)
        .map_max_entries("HIST", scopes * Signal::IN_KERNEL as u32)
        .load(&object)?;
    let reasons = btf.as_ref().map(drop_reasons).unwrap_or_default();
    let loaded = Loaded {
        ebpf,
        reasons,
        symbols: Mutex::default(),
        scopes,
        state: 0,
        queues: Queues::default(),
        kept: HashMap::new(),
        failed: HashMap::new(),
    };
    Ok((loaded, Types { btf, aya: aya_btf, missing: resolved.missing, unusable }))
}

/// CPUs for each of which the kernel keeps histograms.
fn possible_cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

/// How many scopes have histograms: as many as there may be, or as fit [`HIST_BYTES`] on a machine with many CPUs.
fn scopes(cpus: usize) -> u32 {
    let scope_bytes = cpus.max(1) * Signal::IN_KERNEL * size_of::<KernelHist>();
    u32::try_from(HIST_BYTES / scope_bytes).unwrap_or(MAX_SCOPES).clamp(MIN_SCOPES, MAX_SCOPES)
}

/// Programs that read members which this kernel does not have, or of which nothing is known without types.
fn unusable(config: &Config, typed: bool) -> Result<HashMap<String, String>, ImmediateError> {
    let why = |at: usize| match offsets::name_at(at - offset_of!(Config, offsets)) {
        _ if !typed => btf::NONE.to_owned(),
        Some(member) => format!("this kernel has no {member}"),
        None => "this kernel lacks a member that the program reads".to_owned(),
    };
    Ok(immediates::lacking(OBJECT, config)?.into_iter().map(|(name, at)| (name, why(at))).collect())
}

/// Length of a jiffy, us, without fractions, as TCP_INFO reckons: the coarse clocks move once a jiffy.
fn tick_us() -> u32 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    let ns = tick.tv_sec.saturating_mul(1_000_000_000).saturating_add(tick.tv_nsec);
    u32::try_from(ns / 1000).unwrap_or(0)
}

fn configure(options: &ProgramOptions, btf: Option<&Btf>, offsets: Offsets) -> Config {
    let mut flags = 0;
    if !options.filter.is_empty() {
        flags |= flag::FILTER;
    }
    // kfree_skb(skb, location[, reason[, rx_sk]])
    let args = |tracepoint| btf.and_then(|btf| btf.tracepoint_args(tracepoint)).unwrap_or(0);
    if args("kfree_skb") >= 3 {
        flags |= flag::DROP_REASON;
    }
    // tcp_retransmit_skb(sk, skb[, err])
    if args("tcp_retransmit_skb") >= 3 {
        flags |= flag::RETRANSMIT_ERROR;
    }
    if options.empty {
        flags |= flag::EMPTY;
    }
    let mut dns_ports = [0; dns::MAX_PORTS];
    for (slot, port) in dns_ports.iter_mut().zip(&options.dns_ports) {
        *slot = *port;
    }
    let reasons = btf.map(|btf| btf.enum_values("skb_drop_reason")).unwrap_or_default();
    let purge = reasons.into_iter().find(|(name, _)| name == "SKB_DROP_REASON_QUEUE_PURGE");
    let purge_reason = purge.and_then(|(_, value)| u32::try_from(value).ok()).unwrap_or(0);
    Config {
        exemplar_ns: options.exemplar_ns,
        offsets,
        flags,
        sample_every: options.sample_every,
        default_scope: u32::from(if options.others { SCOPE_OTHER } else { SCOPE_IGNORED }),
        purge_reason,
        packets_per_second: options.packets_per_second,
        tick_us: tick_us(),
        wire: options.wire,
        dns_ports,
        filter: options.filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jiffy_is_known() {
        // HZ is 100 to 1000.
        assert!((1_000..=10_000).contains(&tick_us()), "{} us", tick_us());
    }

    #[test]
    fn many_cpus_leave_memory_for_fewer_scopes() {
        assert_eq!([1, 2, 8].map(scopes), [MAX_SCOPES; 3]);
        assert!((MIN_SCOPES..MAX_SCOPES).contains(&scopes(16)));
        assert_eq!([64, 1024].map(scopes), [MIN_SCOPES; 2]);
    }
}
