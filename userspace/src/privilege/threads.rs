//! Does something on every thread of this process, as libpsx does it: what a thread may do belongs to the thread, and only it
//! can give that up.
//!
//! Each thread gets a signal, whose handler does the work and notes how that went. Threads are listed again until a list has
//! none that is new: one that is made meanwhile inherits from its maker, which has done the work or is in the next list. A
//! thread that waits in the kernel and cannot be interrupted does the work before it returns to user space.

use rustix::io::Errno;
use std::{
    collections::HashSet,
    fs, io,
    ptr::null_mut,
    sync::{
        OnceLock,
        atomic::{AtomicI32, AtomicPtr, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

/// Where the kernel lists this process's threads.
pub(super) const TASKS: &str = "/proc/self/task";
/// For so long a thread is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A thread has not done the work yet; no error of the kernel has this number.
const PENDING: i32 = i32::MIN;

type Failure = (&'static str, Errno);
type Work = dyn Fn(i32) -> Result<(), Failure> + Send + Sync;

/// Why it could not be done on all.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The threads cannot be listed.
    #[error("cannot list {TASKS}: {0}")]
    List(io::Error),
    /// The signal cannot be handled.
    #[error("cannot handle the signal for threads: {0}")]
    Signal(io::Error),
    /// The work failed on one.
    #[error("thread {thread}: {step}: {errno}")]
    Failed {
        /// Its number and name.
        thread: String,
        /// The system call.
        step: &'static str,
        /// What the kernel says.
        errno: Errno,
    },
    /// New threads came faster than they were found.
    #[error("threads are made too fast to be counted")]
    Endless,
}

/// The work, and the threads that are to do it.
struct Round {
    work: &'static Work,
    threads: Vec<Thread>,
}

struct Thread {
    tid: i32,
    /// [`PENDING`], 0, or the error's number.
    errno: AtomicI32,
    /// The step that failed.
    step: OnceLock<&'static str>,
}

/// What the handler works on. Rounds are never freed: a late thread may look at them at any time.
static ROUND: AtomicPtr<Round> = AtomicPtr::new(null_mut());

/// Has every thread do the work, this one first; yields those that have not done it yet, because they wait in the kernel.
/// The work may only make system calls: it runs in a signal handler.
///
/// # Errors
/// When it fails on a thread; those before have done it.
pub(super) fn on_all(
    work: impl Fn(i32) -> Result<(), Failure> + Send + Sync + 'static,
) -> Result<Vec<String>, ThreadError> {
    let work: &'static Work = Box::leak(Box::new(work));
    let me = own_tid();
    work(me).map_err(|(step, errno)| ThreadError::Failed { thread: name(me), step, errno })?;
    handle(signal())?;
    let mut done = HashSet::from([me]);
    for _ in 0..100 {
        let new: Vec<i32> =
            list().map_err(ThreadError::List)?.into_iter().filter(|tid| !done.contains(tid)).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let late = round(work, &new)?;
        done.extend(new.into_iter().filter(|tid| !late.contains(tid)));
        if !late.is_empty()
            && list().map_err(ThreadError::List)?.iter().all(|t| done.contains(t) || late.contains(t))
        {
            return Ok(late.into_iter().map(name).collect());
        }
    }
    Err(ThreadError::Endless)
}

/// Has these threads do the work; yields those that did not answer in time.
fn round(work: &'static Work, tids: &[i32]) -> Result<Vec<i32>, ThreadError> {
    let thread = |tid: &i32| Thread { tid: *tid, errno: AtomicI32::new(PENDING), step: OnceLock::new() };
    let round: &'static Round =
        Box::leak(Box::new(Round { work, threads: tids.iter().map(thread).collect() }));
    ROUND.store(std::ptr::from_ref(round).cast_mut(), Ordering::Release);
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    for thread in &round.threads {
        // SAFETY: the call takes three numbers. A thread that has ended meanwhile gives an error, and is not there any more.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, thread.tid, signal()) };
    }
    let begun = Instant::now();
    let mut late = Vec::new();
    for thread in &round.threads {
        loop {
            match thread.errno.load(Ordering::Acquire) {
                0 => break,
                PENDING if !exists(thread.tid) => break,
                PENDING if begun.elapsed() > PATIENCE => {
                    late.push(thread.tid);
                    break;
                }
                PENDING => sleep(Duration::from_millis(1)),
                errno => {
                    let step = thread.step.get().copied().unwrap_or_default();
                    let errno = Errno::from_raw_os_error(errno);
                    return Err(ThreadError::Failed { thread: name(thread.tid), step, errno });
                }
            }
        }
    }
    Ok(late)
}

/// A real-time signal that nothing else uses; glibc keeps the first two for itself.
fn signal() -> i32 {
    libc::SIGRTMAX() - 5
}

/// The handler stays: a late thread's signal would end the process otherwise.
fn handle(signal: i32) -> Result<(), ThreadError> {
    // SAFETY: all bytes 0 are a valid `sigaction`, with no flag, no handler and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is complete and outlives the call; the handler does only what signal(7) allows.
    if unsafe { libc::sigaction(signal, &raw const action, null_mut()) } != 0 {
        return Err(ThreadError::Signal(io::Error::last_os_error()));
    }
    Ok(())
}

/// Does the work on the thread that it interrupts, if it is on the list and has not done it yet.
extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: the location of this thread's errno is valid as long as the thread. Whoever was interrupted finds it unchanged.
    let errno = unsafe { *libc::__errno_location() };
    let round: *const Round = ROUND.load(Ordering::Acquire);
    if !round.is_null() {
        // SAFETY: a round is leaked, so it lives as long as the process, and was complete when it was stored.
        let round = unsafe { &*round };
        let tid = own_tid();
        let is_due = |thread: &&Thread| thread.tid == tid && thread.errno.load(Ordering::Relaxed) == PENDING;
        if let Some(thread) = round.threads.iter().find(is_due) {
            let done = (round.work)(tid);
            let errno = done.map_or_else(
                |(step, errno)| {
                    // Nobody else sets it, so it does not wait; and it holds no memory of its own.
                    let _ = thread.step.set(step);
                    errno.raw_os_error()
                },
                |()| 0,
            );
            thread.errno.store(errno, Ordering::Release);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn own_tid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// This process's threads, by number.
pub(super) fn list() -> io::Result<Vec<i32>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(TASKS)? {
        tids.extend(entry?.file_name().to_string_lossy().parse::<i32>());
    }
    Ok(tids)
}

fn exists(tid: i32) -> bool {
    fs::exists(format!("{TASKS}/{tid}")).unwrap_or(true)
}

/// A thread's number and name.
pub(super) fn name(tid: i32) -> String {
    let comm = fs::read_to_string(format!("{TASKS}/{tid}/comm")).unwrap_or_default();
    format!("{tid} ({})", comm.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, mpsc};

    #[test]
    fn every_thread_does_it_once_and_an_error_names_its_thread() {
        let (stop, stopped) = mpsc::channel::<()>();
        let stopped = Arc::new(Mutex::new(stopped));
        let (ready, is_ready) = mpsc::channel();
        let workers: Vec<_> = (0..8)
            .map(|i| {
                let (stopped, ready) = (stopped.clone(), ready.clone());
                let wait = move || {
                    ready.send(own_tid()).unwrap();
                    // All but one wait for the lock, that one for the channel.
                    let _ = stopped.lock().unwrap().recv();
                };
                std::thread::Builder::new().name(format!("worker-{i}")).spawn(wait).unwrap()
            })
            .collect();
        let tids: HashSet<i32> = is_ready.iter().take(8).collect();
        // A handler can keep no list, so each thread marks its own place.
        static SEEN: [AtomicI32; 1024] = [const { AtomicI32::new(0) }; 1024];
        static COUNT: AtomicI32 = AtomicI32::new(0);
        let mark = |tid| {
            let at = COUNT.fetch_add(1, Ordering::SeqCst);
            SEEN[at as usize % SEEN.len()].store(tid, Ordering::SeqCst);
            Ok(())
        };
        assert_eq!(on_all(mark).unwrap(), Vec::<String>::new());
        let seen: Vec<i32> = SEEN.iter().map(|s| s.load(Ordering::SeqCst)).filter(|tid| *tid != 0).collect();
        for tid in tids.iter().chain([&own_tid()]) {
            assert_eq!(seen.iter().filter(|seen| *seen == tid).count(), 1, "{tid}: {seen:?}");
        }
        let chosen = *tids.iter().next().unwrap();
        let fails = move |tid| if tid == chosen { Err(("a step", Errno::PERM)) } else { Ok(()) };
        let error = on_all(fails).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("thread {chosen} (worker-")) && error.contains("a step"),
            "{error}"
        );
        drop(stop);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}
