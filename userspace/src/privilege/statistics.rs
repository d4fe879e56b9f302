//! Run-time statistics of kernel programs, for a process that has given CAP_SYS_ADMIN up.
//!
//! The kernel asks for that capability each time the statistics are switched on (bpf_enable_stats), and they are on for a
//! fiftieth of the time, because they cost. So one thread keeps it, under a filter that allows BPF_ENABLE_STATS and what
//! waiting and answering take, and nothing else: whoever takes over another thread of the process can have the statistics
//! switched on, and whoever takes over this one cannot do more.

use super::{PrivilegeError, syscalls};
use aya::sys::{Stats, SyscallError, enable_stats};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCmpOp};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        OnceLock,
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

/// For so long its answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// `BPF_ENABLE_STATS` of `enum bpf_cmd`.
const ENABLE_STATS: u32 = 32;

/// Why the statistics are not on.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] SyscallError),
    /// The thread cannot be started.
    #[error("cannot be started: {0}")]
    Start(io::Error),
    /// It does not answer.
    #[error("does not answer")]
    Silent,
    /// It cannot put itself under its filter.
    #[error("cannot filter its system calls: {0}")]
    Filter(String),
    /// There is one already.
    #[error("runs already")]
    Again,
}

enum Request {
    /// To go under its filter.
    Seal(Sender<Result<(), StatisticsError>>),
    /// To switch the statistics on.
    Enable(Sender<Result<OwnedFd, StatisticsError>>),
}

static KEEPER: OnceLock<Sender<Request>> = OnceLock::new();

/// Switches the statistics on until what this yields is dropped; by way of the thread that may, where there is one.
///
/// # Errors
/// When the kernel refuses, as it does without CAP_SYS_ADMIN.
pub fn enable() -> Result<OwnedFd, StatisticsError> {
    match KEEPER.get() {
        None => Ok(enable_stats(Stats::RunTime)?),
        Some(keeper) => ask(keeper, Request::Enable)?,
    }
}

/// Starts the thread; yields its number.
pub(super) fn start() -> Result<i32, StatisticsError> {
    let (sender, requests) = mpsc::channel();
    let (ready, tid) = mpsc::channel();
    let work = move || {
        // Whoever started it waits for this.
        let _ = ready.send(rustix::thread::gettid().as_raw_nonzero().get());
        serve(&requests);
    };
    std::thread::Builder::new().name("statistics".to_owned()).spawn(work).map_err(StatisticsError::Start)?;
    let tid = tid.recv_timeout(PATIENCE).map_err(|_| StatisticsError::Silent)?;
    KEEPER.set(sender).map_err(|_| StatisticsError::Again)?;
    Ok(tid)
}

/// Has the thread put itself under its filter.
pub(super) fn seal() -> Result<(), PrivilegeError> {
    let keeper = KEEPER.get().ok_or(StatisticsError::Silent)?;
    ask(keeper, Request::Seal)?.map_err(PrivilegeError::Statistics)
}

fn ask<T>(
    keeper: &Sender<Request>,
    request: impl FnOnce(Sender<T>) -> Request,
) -> Result<T, StatisticsError> {
    let (answer, answered) = mpsc::channel();
    keeper.send(request(answer)).map_err(|_| StatisticsError::Silent)?;
    answered.recv_timeout(PATIENCE).map_err(|_| StatisticsError::Silent)
}

/// Until nobody can ask any more. Whoever gave up waiting needs no answer.
fn serve(requests: &Receiver<Request>) {
    for request in requests {
        match request {
            Request::Seal(answer) => {
                let sealed =
                    filter().map_err(seccompiler::Error::from).and_then(|f| seccompiler::apply_filter(&f));
                let _ = answer.send(sealed.map_err(|error| StatisticsError::Filter(error.to_string())));
            }
            Request::Enable(answer) => {
                let _ = answer.send(enable_stats(Stats::RunTime).map_err(StatisticsError::from));
            }
        }
    }
}

/// BPF_ENABLE_STATS; what channels and memory take, which is never executable; and the thread's end.
fn filter() -> Result<BpfProgram, BackendError> {
    let free = [
        libc::SYS_futex,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_close,
        libc::SYS_clock_gettime,
        libc::SYS_sched_yield,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_tgkill,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let data_only = || {
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        Ok(vec![syscalls::all(vec![syscalls::when(2, executable, 0)?])?])
    };
    let statistics = syscalls::all(vec![syscalls::when(0, SeccompCmpOp::Eq, ENABLE_STATS)?])?;
    let mut rules: std::collections::BTreeMap<_, _> =
        free.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_bpf, vec![statistics]);
    rules.insert(libc::SYS_mmap, data_only()?);
    rules.insert(libc::SYS_mprotect, data_only()?);
    syscalls::program(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}
