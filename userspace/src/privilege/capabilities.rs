//! Which capabilities the agent keeps, why, and how a thread takes on what is left.

use super::{Needs, Part, PrivilegeError, hex, read_error};
use caps::Capability;
use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities},
};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// When a capability is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In every run.
    Always,
    /// When network namespaces other than its own are measured.
    Namespaces,
    /// When those are named by a process's number.
    Processes,
    /// On the thread of the run-time statistics alone.
    Statistics,
}

/// A capability that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Which one.
    pub capability: Capability,
    /// When.
    pub when: When,
    /// What for, with the kernel function that asks for it.
    pub why: &'static str,
}

/// Everything that is kept. docs/privileges.md has the same table.
pub static CAPABILITIES: &[Kept] = &[
    Kept {
        capability: Capability::CAP_BPF,
        when: When::Always,
        why: "reads maps and attaches programs where unprivileged BPF is off: __sys_bpf",
    },
    Kept {
        capability: Capability::CAP_PERFMON,
        when: When::Always,
        why: "opens kprobes, which come and go with the duty cycle: perf_kprobe_event_init",
    },
    Kept {
        capability: Capability::CAP_NET_ADMIN,
        when: When::Always,
        why: "attaches to new interfaces by clsact and takes that away: tc_modify_qdisc, tc_new_tfilter; asks connection \
              tracking, nftables and iptables: nfnetlink_rcv, do_ipt_get_ctl",
    },
    Kept {
        capability: Capability::CAP_SYS_ADMIN,
        when: When::Namespaces,
        why: "enters network namespaces: netns_install",
    },
    Kept {
        capability: Capability::CAP_SYS_PTRACE,
        when: When::Processes,
        why: "opens the namespace of a process that has other capabilities: ptrace_may_access",
    },
    Kept {
        capability: Capability::CAP_SYS_ADMIN,
        when: When::Statistics,
        why: "switches the run-time statistics of kernel programs on for a fiftieth of the time: bpf_enable_stats",
    },
];

/// The last capability that is known: CAP_CHECKPOINT_RESTORE. What a kernel has beyond is in no set that is kept, and stays in
/// the bounding set, which no_new_privs makes meaningless.
const LAST: u32 = 40;

/// What a thread holds, both effective and permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sets {
    bits: u64,
}

impl Sets {
    /// Of this thread: what it is permitted.
    pub(super) fn read() -> Result<Self, PrivilegeError> {
        let sets =
            capabilities(None).map_err(|errno| read_error("this thread's capabilities", errno.into()))?;
        Ok(Self { bits: sets.permitted.bits() })
    }

    /// Of the thread that switches the statistics on.
    pub(super) fn statistics() -> Self {
        Self { bits: Capability::CAP_SYS_ADMIN.bitmask() }
    }

    pub(super) const fn has(self, capability: Capability) -> bool {
        self.bits >> (capability as u8) & 1 == 1
    }

    /// What is kept of them. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as it does to the kernel (bpf_capable,
    /// perfmon_capable), where those were not given.
    pub(super) fn kept(self, needs: &Needs) -> Self {
        let wanted = |when| match when {
            When::Always => true,
            When::Namespaces => needs.namespaces,
            When::Processes => needs.processes,
            When::Statistics => false,
        };
        let mut bits = 0;
        for row in CAPABILITIES.iter().filter(|row| wanted(row.when)) {
            let split_off = matches!(row.capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
            bits |= match row.capability {
                capability if self.has(capability) => capability.bitmask(),
                _ if split_off && self.has(Capability::CAP_SYS_ADMIN) => Capability::CAP_SYS_ADMIN.bitmask(),
                _ => 0,
            };
        }
        Self { bits }
    }

    /// Their names.
    pub(super) fn names(self) -> Vec<Capability> {
        let mut names: Vec<_> = caps::all().into_iter().filter(|capability| self.has(*capability)).collect();
        names.sort_by_key(Capability::index);
        names
    }

    pub(super) fn hex(self) -> String {
        hex(self.bits)
    }

    /// prctl(PR_CAPBSET_DROP) asks for CAP_SETPCAP.
    pub(super) const fn may_clear_bounding(self) -> bool {
        self.has(Capability::CAP_SETPCAP)
    }

    pub(super) fn bounding_part(self) -> Part {
        if self.may_clear_bounding() {
            Part::On("empty".to_owned())
        } else {
            Part::Off(
                "CAP_SETPCAP was not there; no_new_privs keeps everything in it out of reach".to_owned(),
            )
        }
    }

    const fn of_thread(self) -> CapabilitySets {
        let held = CapabilitySet::from_bits_retain(self.bits);
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() }
    }
}

/// What a thread does to itself.
pub(super) struct Own {
    /// What it holds from then on; none for what it has.
    pub(super) sets: Option<Sets>,
    /// The thread that holds something else.
    pub(super) statistics: Option<(i32, Sets)>,
    /// Whether the bounding set is emptied.
    pub(super) bounding: bool,
    /// Landlock's rules. Each thread gets a domain of its own with the same rules: before ABI 8 the kernel has no way to put
    /// one on all threads.
    pub(super) ruleset: Option<OwnedFd>,
}

impl Own {
    /// Runs in a signal handler: system calls alone, no memory is allocated, nothing is locked.
    pub(super) fn take(&self, tid: i32) -> Result<(), (&'static str, Errno)> {
        rustix::thread::set_no_new_privs(true).map_err(|errno| ("prctl(PR_SET_NO_NEW_PRIVS)", errno))?;
        if let Some(sets) = self.sets {
            rustix::thread::clear_ambient_capability_set()
                .map_err(|errno| ("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", errno))?;
            if self.bounding {
                empty_bounding()?;
            }
            let special = self.statistics.filter(|(keeper, _)| *keeper == tid).map(|(_, sets)| sets);
            set_capabilities(None, special.unwrap_or(sets).of_thread()).map_err(|errno| ("capset", errno))?;
        }
        match &self.ruleset {
            Some(ruleset) => restrict_self(ruleset).map_err(|errno| ("landlock_restrict_self", errno)),
            None => Ok(()),
        }
    }
}

fn empty_bounding() -> Result<(), (&'static str, Errno)> {
    for bit in 0..=LAST {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // EINVAL: an older kernel does not know it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(("prctl(PR_CAPBSET_DROP)", errno)),
        }
    }
    Ok(())
}

/// The crate `landlock` restricts the calling thread once for each ruleset, and needs memory for what it yields.
fn restrict_self(ruleset: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the call takes a descriptor, which is open, and flags, and no pointer.
    let code = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the location of this thread's errno is valid as long as the thread.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYS_PTRACE};

    fn sets(capabilities: &[Capability]) -> Sets {
        Sets { bits: capabilities.iter().map(Capability::bitmask).sum() }
    }

    #[test]
    fn only_what_is_needed_and_was_there_is_kept() {
        let root = Sets { bits: (1 << (LAST + 1)) - 1 };
        let needs = Needs::default();
        assert_eq!(root.kept(&needs), sets(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN]));
        let needs = Needs { namespaces: true, ..needs };
        assert_eq!(root.kept(&needs).names(), [CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF]);
        let needs = Needs { processes: true, ..needs };
        assert!(root.kept(&needs).has(CAP_SYS_PTRACE));
        assert_eq!(sets(&[CAP_NET_ADMIN, CAP_SETPCAP]).kept(&needs), sets(&[CAP_NET_ADMIN]));
        assert_eq!(sets(&[]).kept(&needs).names(), []);
    }

    #[test]
    fn cap_sys_admin_stands_for_what_was_split_off() {
        let had = sets(&[CAP_SYS_ADMIN, CAP_NET_ADMIN]);
        assert_eq!(had.kept(&Needs::default()), had);
        let had = sets(&[CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON]);
        assert!(!had.kept(&Needs::default()).has(CAP_SYS_ADMIN));
    }

    #[test]
    fn the_document_has_every_row_of_the_table() {
        let document = include_str!("../../../docs/privileges.md");
        for row in CAPABILITIES {
            let functions = row.why.rsplit(": ").next().unwrap();
            let line = document.lines().find(|line| {
                line.starts_with(&format!("| {} |", row.capability)) && line.contains(functions)
            });
            assert!(line.is_some(), "{} for {functions}", row.capability);
        }
    }
}
