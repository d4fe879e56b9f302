//! System calls that are refused: a list of what the agent never does, EPERM for each.
//!
//! Why what is refused is listed, and not what is allowed. An agent runs for months on kernels, C libraries and architectures
//! that nobody tried, and its threads belong to the standard library, to tokio and to aya, which make other calls with each
//! version: with a list of what is allowed the first new one is a node without measurements, at the worst a thread that
//! spins. What makes this process worth taking over are its capabilities, and what those could do is a closed list: load
//! kernel programs and modules, mount, trace, enter namespaces, start programs. All of that is refused, bpf(2) command by
//! command. The one thread that holds CAP_SYS_ADMIN has a list of what is allowed, because it is all our own code, see
//! [`super::statistics`].
//!
//! EPERM rather than the end of the process: a call that was thought never to be made then fails like any other, and is said.

use super::{Needs, PrivilegeConfig};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever their arguments are.
const REFUSED: &[i64] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_personality,
    libc::SYS_vhangup,
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Namespaces; setns(2) is below.
    libc::SYS_unshare,
    // Clocks and names of the machine.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Users, and what belongs to whom, which Landlock does not look at.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmodat,
    libc::SYS_mknodat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // Ways into the kernel that are wider than what they are for here.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// Those that only one of the architectures has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_chmod,
    libc::SYS_mknod,
];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[i64] = &[];

/// Commands of bpf(2) that go on being made: elements of maps, one by one and in batches, information, tracepoints, links, and
/// the run-time statistics. Numbers of `enum bpf_cmd`.
const BPF_COMMANDS: &[u32] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    16, // BPF_PROG_QUERY
    17, // BPF_RAW_TRACEPOINT_OPEN
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE
    29, // BPF_LINK_UPDATE
    32, // BPF_ENABLE_STATS
    34, // BPF_LINK_DETACH
];

/// And those that load, where that is needed.
const BPF_LOADING: &[u32] = &[
    0,  // BPF_MAP_CREATE
    5,  // BPF_PROG_LOAD
    18, // BPF_BTF_LOAD
    22, // BPF_MAP_FREEZE
];

/// Families of sockets: of this machine, IPv4, IPv6, and netlink. No packet sockets.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Puts a character into a terminal's input, or selects on its console (ioctl(2)).
const TERMINAL: [u32; 2] = [0x5412, 0x541c];

/// Filters for all threads.
///
/// # Errors
/// When a filter is too long for the kernel.
pub(super) fn filters(config: &PrivilegeConfig, needs: &Needs) -> Result<[BpfProgram; 2], BackendError> {
    Ok([
        unknown(),
        program(refused(config, needs)?, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))?,
    ])
}

/// A filter of the architecture that this runs on.
pub(super) fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, matching, arch)?.try_into()
}

/// One condition on one argument.
pub(super) fn when(argument: u8, is: SeccompCmpOp, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, is, u64::from(value))
}

/// A rule of conditions that are all to be met.
pub(super) fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

/// A rule for an argument that is none of these.
fn none_of(argument: u8, values: impl IntoIterator<Item = u32>) -> Result<SeccompRule, BackendError> {
    all(values.into_iter().map(|value| when(argument, SeccompCmpOp::Ne, value)).collect::<Result<_, _>>()?)
}

fn refused(config: &PrivilegeConfig, needs: &Needs) -> Result<Rules, BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|number| (*number, Vec::new())).collect();
    let loading = if config.loading { BPF_LOADING } else { &[] };
    rules.insert(libc::SYS_bpf, vec![none_of(0, BPF_COMMANDS.iter().chain(loading).copied())?]);
    rules.insert(libc::SYS_socket, vec![none_of(0, FAMILIES.iter().map(|family| *family as u32))?]);
    let setns = if needs.namespaces { vec![none_of(1, [libc::CLONE_NEWNET as u32])?] } else { Vec::new() };
    rules.insert(libc::SYS_setns, setns);
    rules.insert(libc::SYS_clone, clone()?);
    let terminal = TERMINAL.iter().map(|request| all(vec![when(1, SeccompCmpOp::Eq, *request)?]));
    rules.insert(libc::SYS_ioctl, terminal.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// Threads are made, no processes and no namespaces.
fn clone() -> Result<Vec<SeccompRule>, BackendError> {
    const NAMESPACES: [libc::c_int; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let is = |flag: libc::c_int, value: u32| {
        all(vec![when(0, SeccompCmpOp::MaskedEq(u64::from(flag as u32)), value)?])
    };
    let process = is(libc::CLONE_THREAD, 0);
    std::iter::once(process).chain(NAMESPACES.iter().map(|flag| is(*flag, *flag as u32))).collect()
}

/// What is answered as if the kernel did not have it (ENOSYS): clone3(2), whose flags are in memory where no filter sees them,
/// so that the C library falls back to clone(2); and calls of the x32 ABI, which are x86_64's by other numbers.
fn unknown() -> BpfProgram {
    // BPF_LD | BPF_W | BPF_ABS, of `seccomp_data.nr`; BPF_JMP | BPF_JEQ or BPF_JGE | BPF_K; BPF_RET | BPF_K.
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    const X32: u32 = 0x4000_0000;
    vec![
        step(0x20, 0, 0, 0),
        step(0x15, 1, 0, libc::SYS_clone3 as u32),
        step(0x35, 0, 1, X32),
        step(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a filter says to a call: the part of classic BPF that filters here are made of.
    fn verdict(program: &[sock_filter], number: i64, arguments: [u64; 6]) -> u32 {
        // AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
        let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        let mut data = Vec::new();
        data.extend((number as u32).to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend([0; 8]);
        arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match code {
                0x20 => {
                    let from = k as usize;
                    a = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x06 => return k,
                other => panic!("{other:#x} at {at}"),
            }
        }
    }

    fn answer(needs: &Needs, number: i64, arguments: &[u64]) -> &'static str {
        answer_of(&PrivilegeConfig { loading: false, ..PrivilegeConfig::default() }, needs, number, arguments)
    }

    fn answer_of(config: &PrivilegeConfig, needs: &Needs, number: i64, arguments: &[u64]) -> &'static str {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        // The kernel takes the gravest: an error before an approval.
        let verdicts = filters(config, needs).unwrap().map(|program| verdict(&program, number, all));
        let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
        match verdicts {
            [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ALLOW] => "allowed",
            [first, _] if first == errno(libc::ENOSYS) => "unknown",
            [libc::SECCOMP_RET_ALLOW, second] if second == errno(libc::EPERM) => "refused",
            other => panic!("{other:x?}"),
        }
    }

    #[test]
    fn what_is_never_done_is_refused_and_the_rest_is_not() {
        let needs = Needs::default();
        for number in REFUSED.iter().chain(REFUSED_HERE) {
            assert_eq!(answer(&needs, *number, &[]), "refused", "{number}");
        }
        for number in
            [libc::SYS_read, libc::SYS_openat, libc::SYS_futex, libc::SYS_perf_event_open, libc::SYS_exit]
        {
            assert_eq!(answer(&needs, number, &[]), "allowed", "{number}");
        }
    }

    #[test]
    fn programs_are_loaded_only_where_that_is_needed() {
        let (loading, needs) = (PrivilegeConfig::default(), Needs::default());
        for command in 0..64 {
            let known = BPF_COMMANDS.contains(&command);
            let told = answer(&needs, libc::SYS_bpf, &[u64::from(command)]);
            assert_eq!(told, if known { "allowed" } else { "refused" }, "{command}");
            let told = answer_of(&loading, &needs, libc::SYS_bpf, &[u64::from(command)]);
            assert_eq!(told == "allowed", known || BPF_LOADING.contains(&command), "{command}");
        }
    }

    #[test]
    fn arguments_decide_about_sockets_namespaces_and_threads() {
        let none = Needs::default();
        let some = Needs { namespaces: true, ..Needs::default() };
        let of = |flag: libc::c_int| u64::from(flag as u32);
        for family in 0..64 {
            let known = FAMILIES.contains(&family);
            let told = answer(&none, libc::SYS_socket, &[of(family)]);
            assert_eq!(told, if known { "allowed" } else { "refused" }, "{family}");
        }
        let net = of(libc::CLONE_NEWNET);
        assert_eq!(answer(&none, libc::SYS_setns, &[3, net]), "refused");
        assert_eq!(answer(&some, libc::SYS_setns, &[3, net]), "allowed");
        for other in [0, of(libc::CLONE_NEWNS), of(libc::CLONE_NEWNS) | net] {
            assert_eq!(answer(&some, libc::SYS_setns, &[3, other]), "refused", "{other:#x}");
        }
        let thread = of(libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD);
        assert_eq!(answer(&none, libc::SYS_clone, &[thread]), "allowed");
        assert_eq!(answer(&none, libc::SYS_clone, &[thread | of(libc::CLONE_NEWNET)]), "refused");
        assert_eq!(answer(&none, libc::SYS_clone, &[of(libc::SIGCHLD)]), "refused");
        assert_eq!(answer(&none, libc::SYS_ioctl, &[0, 0x5412]), "refused");
        assert_eq!(answer(&none, libc::SYS_ioctl, &[0, 0x8946]), "allowed");
    }

    #[test]
    fn what_hides_its_arguments_or_its_number_is_not_known() {
        assert_eq!(answer(&Needs::default(), libc::SYS_clone3, &[]), "unknown");
        assert_eq!(answer(&Needs::default(), 0x4000_0000 | libc::SYS_bpf, &[5]), "unknown");
    }
}
