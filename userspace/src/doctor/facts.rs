//! What the node says of itself, with the file that said it, and nothing of what that means.

use super::{
    cni::{self, Clues},
    files::{FileError, Files},
};
use crate::{btf, preflight::Machine};
use caps::CapsHashSet;
use flate2::read::GzDecoder;
use std::io::Read as _;

/// Something that was read, and from where.
#[derive(Debug)]
pub(super) struct Fact<T> {
    /// The files.
    pub(super) from: Vec<String>,
    /// What it says, or why it does not.
    pub(super) value: Result<T, FileError>,
}

impl<T> Fact<T> {
    fn new(from: &str, value: Result<T, FileError>) -> Self {
        Self { from: vec![from.to_owned()], value }
    }

    /// The value where it is known.
    #[must_use]
    pub(super) fn known(&self) -> Option<&T> {
        self.value.as_ref().ok()
    }
}

/// A file system that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its type, as in `/proc/filesystems`.
    pub(super) kind: String,
    /// Where.
    pub(super) target: String,
}

/// Entries of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conntrack {
    /// Connections in it.
    pub(super) count: u64,
    /// The most there may be; 0 for no limit.
    pub(super) max: u64,
    /// Hash buckets.
    pub(super) buckets: u64,
}

/// Everything that is read.
#[derive(Debug)]
pub(super) struct Facts {
    /// `uname -r`.
    pub(super) release: Fact<String>,
    /// As in [`std::env::consts::ARCH`].
    pub(super) arch: String,
    /// Size of the kernel's own BTF, bytes.
    pub(super) btf_bytes: Fact<u64>,
    /// Modules with BTF.
    pub(super) btf_modules: Fact<usize>,
    /// Whether a kprobe can be made.
    pub(super) kprobes: Fact<bool>,
    /// Whether the kernel was built with what fentry needs.
    pub(super) fentry: Fact<bool>,
    /// Clock source in use.
    pub(super) clock: Fact<String>,
    /// Clock sources there are.
    pub(super) clocks: Fact<String>,
    /// Effective capabilities.
    pub(super) capabilities: Result<CapsHashSet, String>,
    /// Map of this process's user namespace.
    pub(super) uid_map: Fact<String>,
    /// RLIMIT_MEMLOCK, bytes; none for no limit.
    pub(super) memlock_bytes: Fact<Option<u64>>,
    /// `net.core.bpf_jit_enable`.
    pub(super) jit: Fact<u32>,
    /// `net.core.bpf_jit_harden`.
    pub(super) jit_harden: Fact<u32>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub(super) unprivileged: Fact<u32>,
    /// `kernel.perf_event_paranoid`.
    pub(super) paranoid: Fact<i32>,
    /// Lockdown's modes, the one in force in brackets.
    pub(super) lockdown: Fact<String>,
    /// What is mounted.
    pub(super) mounts: Fact<Vec<Mount>>,
    /// The connection table.
    pub(super) conntrack: Fact<Conntrack>,
    /// What hints at who connects the pods.
    pub(super) cni: Clues,
}

const RELEASE: &str = "/proc/sys/kernel/osrelease";
const BTF_DIR: &str = "/sys/kernel/btf";
const PMU_DIR: &str = "/sys/bus/event_source/devices";
const KPROBE_EVENTS: [&str; 2] =
    ["/sys/kernel/tracing/kprobe_events", "/sys/kernel/debug/tracing/kprobe_events"];
const FENTRY_OPTION: &str = "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS";
const KPROBE_OPTION: &str = "CONFIG_KPROBE_EVENTS";
const CLOCK_DIR: &str = "/sys/devices/system/clocksource/clocksource0";
const LIMITS: &str = "/proc/self/limits";
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_";

/// Reads everything.
#[must_use]
pub(super) fn gather(machine: &impl Machine) -> Facts {
    let files = Files::new(machine.root());
    let release = Fact::new(RELEASE, files.text(RELEASE));
    let config = BuildConfig::read(&files, release.known());
    let number = |path: &str| Fact::new(path, files.number(path));
    let text = |path: &str| Fact::new(path, files.text(path));
    Facts {
        arch: machine.arch().to_owned(),
        btf_bytes: Fact::new(btf::VMLINUX, files.size_bytes(btf::VMLINUX)),
        btf_modules: Fact::new(
            BTF_DIR,
            files.names(BTF_DIR).map(|names| names.iter().filter(|n| *n != "vmlinux").count()),
        ),
        kprobes: kprobes(&files, &config),
        fentry: config.option(FENTRY_OPTION),
        clock: text(&format!("{CLOCK_DIR}/current_clocksource")),
        clocks: text(&format!("{CLOCK_DIR}/available_clocksource")),
        capabilities: machine.capabilities().map_err(|e| e.to_string()),
        uid_map: text("/proc/self/uid_map"),
        memlock_bytes: Fact::new(LIMITS, memlock(&files)),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        jit_harden: number("/proc/sys/net/core/bpf_jit_harden"),
        unprivileged: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        paranoid: Fact::new(
            "/proc/sys/kernel/perf_event_paranoid",
            files.number("/proc/sys/kernel/perf_event_paranoid"),
        ),
        lockdown: text("/sys/kernel/security/lockdown"),
        mounts: Fact::new("/proc/self/mounts", files.text("/proc/self/mounts").map(|t| mounts(&t))),
        conntrack: Fact {
            from: ["count", "max", "buckets"].map(|what| format!("{CONNTRACK}{what}")).into(),
            value: conntrack(&files),
        },
        cni: cni::clues(&files),
        release,
    }
}

/// The options that the kernel was built with.
struct BuildConfig {
    from: String,
    text: Result<String, String>,
}

impl BuildConfig {
    fn read(files: &Files, release: Option<&String>) -> Self {
        const PROC: &str = "/proc/config.gz";
        let packed = files.bytes(PROC).and_then(|bytes| {
            let mut text = String::new();
            let unpacked = GzDecoder::new(bytes.as_slice()).take(8 << 20).read_to_string(&mut text);
            unpacked.map(|_| text).map_err(|error| FileError::Read { path: PROC.to_owned(), error })
        });
        let why = match packed {
            Ok(text) => return Self { from: PROC.to_owned(), text: Ok(text) },
            Err(error) => error.to_string(),
        };
        let Some(release) = release else { return Self { from: PROC.to_owned(), text: Err(why) } };
        let boot = format!("/boot/config-{release}");
        let text = files.text(&boot).map_err(|error| format!("{why}; {error}"));
        Self { from: boot, text }
    }

    /// Whether an option is built in.
    fn option(&self, name: &str) -> Fact<bool> {
        let value = match &self.text {
            Ok(text) => Ok(text.lines().any(|line| line == format!("{name}=y"))),
            Err(why) => Err(FileError::Unknown(why.clone())),
        };
        Fact::new(&self.from, value)
    }
}

/// The perf unit `kprobe` is there exactly when kprobe events are built in; where /sys does not tell, tracefs or the
/// kernel's configuration may.
fn kprobes(files: &Files, config: &BuildConfig) -> Fact<bool> {
    let units = files.names(PMU_DIR);
    if let Ok(names) = units {
        return Fact::new(PMU_DIR, Ok(names.iter().any(|n| n == "kprobe")));
    }
    if let Some(path) = KPROBE_EVENTS.into_iter().find(|path| files.exists(path)) {
        return Fact::new(path, Ok(true));
    }
    config.option(KPROBE_OPTION)
}

/// The soft limit: `Max locked memory  8388608  8388608  bytes`.
fn memlock(files: &Files) -> Result<Option<u64>, FileError> {
    let text = files.text(LIMITS)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let word = line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    match word {
        "unlimited" => Ok(None),
        number => number.parse().map(Some).map_err(|_| FileError::Content {
            path: LIMITS.to_owned(),
            expected: "a limit of locked memory",
            found: number.to_owned(),
        }),
    }
}

/// `DEVICE TARGET TYPE OPTIONS 0 0`, see fstab(5).
fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (target, kind) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Mount { kind, target })
    };
    text.lines().filter_map(mount).collect()
}

fn conntrack(files: &Files) -> Result<Conntrack, FileError> {
    let number = |what: &str| files.number(&format!("{CONNTRACK}{what}"));
    Ok(Conntrack { count: number("count")?, max: number("max")?, buckets: number("buckets")? })
}
