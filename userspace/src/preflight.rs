//! What `run` and `record` need of the machine before they attach anything.
//!
//! Needs a [`Machine`] and [`Needs`]; yields every [`Problem`] at once, each with a hint (exit code 2). It changes
//! nothing but this process's own RLIMIT_MEMLOCK, and that only on kernels before 5.11, which charge maps to it.
//!
//! Tracefs is not asked for: programs are attached by BTF, which also names the drop reasons.

use crate::cli::Exit;
use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Architectures that an object of kernel programs is built for, as in [`std::env::consts::ARCH`].
pub const ARCHES: [&str; 2] = ["x86_64", "aarch64"];
/// The oldest kernel that is supported.
pub const OLDEST_KERNEL: Release = Release { major: 5, minor: 10 };
/// From this kernel on, maps are charged to the memory cgroup and not to RLIMIT_MEMLOCK.
pub const NO_MEMLOCK: Release = Release { major: 5, minor: 11 };
const BTF: &str = "sys/kernel/btf/vmlinux";
/// What to do where the kernel's BTF cannot be read, or where there is none.
pub const BTF_HINT: &str =
    "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and in a container mount the host's /sys";

/// What a run will ask of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whether it enters other network namespaces: `--netns`, `--lab`.
    pub namespaces: bool,
    /// Memory of its ring and maps, bytes.
    pub map_bytes: u64,
}

/// What the check asks about. [`Host`] is the real one.
pub trait Machine {
    /// Where `/proc` and `/sys` are.
    fn root(&self) -> &Path;
    /// The architecture, as in [`std::env::consts::ARCH`].
    fn arch(&self) -> &str;
    /// This thread's effective capabilities.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn capabilities(&self) -> Result<CapsHashSet, caps::errors::CapsError>;
    /// Raises RLIMIT_MEMLOCK as far as it goes; yields the limit in force then, bytes, or none for no limit.
    fn raise_memlock(&self) -> Option<u64>;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl Machine for Host {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn arch(&self) -> &str {
        std::env::consts::ARCH
    }

    fn capabilities(&self) -> Result<CapsHashSet, caps::errors::CapsError> {
        caps::read(None, CapSet::Effective)
    }

    fn raise_memlock(&self) -> Option<u64> {
        let unlimited = Rlimit { current: None, maximum: None };
        if setrlimit(Resource::Memlock, unlimited).is_err() {
            // Without CAP_SYS_RESOURCE the hard limit stays; up to it everyone may go.
            let maximum = getrlimit(Resource::Memlock).maximum;
            // When even this fails, the limit below is the old one, and that is what the check reports.
            let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
        }
        getrlimit(Resource::Memlock).current
    }
}

/// A kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// 6 of 6.12.
    pub major: u32,
    /// 12 of 6.12.
    pub minor: u32,
}

impl Release {
    /// Of `uname -r`: `6.1.0-28-amd64`.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.trim().split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest.get(..digits)?.parse().ok()? })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why nothing can be attached.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Capabilities are missing.
    #[error("missing {}", list(missing))]
    Capabilities {
        /// Those that are missing.
        missing: Vec<Capability>,
        /// All that the run needs.
        needed: Vec<Capability>,
    },
    /// The kernel does not tell which capabilities there are.
    #[error("cannot read this process's capabilities: {0}")]
    CapabilitiesUnknown(caps::errors::CapsError),
    /// Capabilities in a user namespace do not count for BPF.
    #[error("this process is in a user namespace, whose root may not load kernel programs")]
    UserNamespace,
    /// The kernel is too old.
    #[error("kernel {0} is too old: nettrace needs {OLDEST_KERNEL} or newer")]
    KernelTooOld(Release),
    /// The kernel's version cannot be told.
    #[error("cannot tell the kernel's version from {}: {reason}", path.display())]
    KernelUnknown {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The kernel's type information cannot be read.
    #[error("cannot read the kernel's BTF, {}: {source}", path.display())]
    Btf {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Lockdown forbids kernel programs to read kernel memory.
    #[error("the kernel is locked down (confidentiality): programs may not read kernel memory")]
    Lockdown,
    /// The limit on locked memory is below what the maps take.
    #[error("the limit on locked memory is {limit} bytes, and the kernel maps take {needed} bytes")]
    Memlock {
        /// The limit, bytes.
        limit: u64,
        /// What the maps take, bytes.
        needed: u64,
    },
    /// No object of kernel programs for this architecture.
    #[error("there are no kernel programs for {0} in this build, only for {built}", built = ARCHES.join(" and "))]
    Arch(String),
}

impl Problem {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Capabilities { needed, .. } => {
                let names: Vec<_> = needed.iter().map(|c| c.to_string().to_lowercase()).collect();
                let names = names.join(",");
                format!(
                    "run nettrace with sudo, or grant them: sudo setcap {names}+ep $(command -v nettrace)"
                )
            }
            Self::CapabilitiesUnknown(_) => "run nettrace with sudo".into(),
            Self::UserNamespace => {
                "run nettrace on the host or in a container without user namespaces (not rootless)".into()
            }
            Self::KernelTooOld(_) => "boot a newer kernel".into(),
            Self::KernelUnknown { .. } => "mount /proc".into(),
            Self::Btf { .. } => BTF_HINT.into(),
            Self::Lockdown => "boot with lockdown=integrity or without lockdown".into(),
            Self::Memlock { .. } => "raise it with `ulimit -l unlimited`, or lower --ring-size".into(),
            Self::Arch(_) => "run it on one of those".into(),
        }
    }
}

/// All problems of a machine, one line each.
#[derive(Debug)]
pub struct PreflightError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl PreflightError {
    /// How the process ends.
    pub const EXIT: Exit = Exit::Usage;
}

impl fmt::Display for PreflightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}; {}", problem.hint())?;
        }
        Ok(())
    }
}

impl std::error::Error for PreflightError {}

/// Checks a machine.
///
/// # Errors
/// With everything that is in the way, not only the first.
pub fn check(machine: &impl Machine, needs: Needs) -> Result<(), PreflightError> {
    let mut problems = Vec::new();
    problems.extend(check_arch(machine.arch()));
    let release = match kernel_release(machine.root()) {
        Ok(release) if release < OLDEST_KERNEL => {
            problems.push(Problem::KernelTooOld(release));
            None
        }
        Ok(release) => Some(release),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    problems.extend(check_capabilities(machine, needs));
    problems.extend(check_user_namespace(machine.root()));
    problems.extend(check_lockdown(machine.root()));
    problems.extend(check_btf(machine.root()));
    // Raised last and only when everything else is in order: it is the one thing that is changed.
    if problems.is_empty() && release.is_some_and(|r| r < NO_MEMLOCK) {
        let limit = machine.raise_memlock().filter(|limit| *limit < needs.map_bytes);
        problems.extend(limit.map(|limit| Problem::Memlock { limit, needed: needs.map_bytes }));
    }
    if problems.is_empty() { Ok(()) } else { Err(PreflightError { problems }) }
}

fn check_arch(arch: &str) -> Option<Problem> {
    (!ARCHES.contains(&arch)).then(|| Problem::Arch(arch.to_owned()))
}

fn kernel_release(root: &Path) -> Result<Release, Problem> {
    let path = root.join("proc/sys/kernel/osrelease");
    let unknown = |reason| Problem::KernelUnknown { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|e| unknown(e.to_string()))?;
    Release::parse(&text).ok_or_else(|| unknown(format!("`{}` is no version", text.trim())))
}

fn check_capabilities(machine: &impl Machine, needs: Needs) -> Option<Problem> {
    let have = match machine.capabilities() {
        Ok(have) => have,
        Err(e) => return Some(Problem::CapabilitiesUnknown(e)),
    };
    let mut needed = vec![Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];
    if needs.namespaces {
        needed.push(Capability::CAP_SYS_ADMIN);
    }
    let granted = |cap| {
        let split_off = matches!(cap, Capability::CAP_BPF | Capability::CAP_PERFMON);
        have.contains(&cap) || split_off && have.contains(&Capability::CAP_SYS_ADMIN)
    };
    let missing: Vec<_> = needed.iter().copied().filter(|cap| !granted(*cap)).collect();
    (!missing.is_empty()).then_some(Problem::Capabilities { missing, needed })
}

/// The first user namespace maps every number onto itself; no other one does.
fn check_user_namespace(root: &Path) -> Option<Problem> {
    // A kernel without user namespaces has no such file.
    let map = fs::read_to_string(root.join("proc/self/uid_map")).ok()?;
    let first = map.split_whitespace().eq(["0", "0", "4294967295"]);
    (!first).then_some(Problem::UserNamespace)
}

fn check_lockdown(root: &Path) -> Option<Problem> {
    // Without the lockdown module or without securityfs there is no such file; then loading tells.
    let modes = fs::read_to_string(root.join("sys/kernel/security/lockdown")).ok()?;
    modes.contains("[confidentiality]").then_some(Problem::Lockdown)
}

fn check_btf(root: &Path) -> Option<Problem> {
    let path = root.join(BTF);
    // Where there is none, some signals work all the same.
    let error = fs::File::open(&path).err().filter(|error| error.kind() != io::ErrorKind::NotFound);
    error.map(|source| Problem::Btf { path, source })
}

/// `A`, `A and B`, `A, B and C`.
fn list(caps: &[Capability]) -> String {
    let names: Vec<_> = caps.iter().map(ToString::to_string).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
