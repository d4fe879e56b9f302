//! Wakes a thread from a blocking call now and then, so that it can look whether it has waited long enough.
//!
//! Needs `SIGURG`, which nothing else here uses and which is ignored by default. Yields calls that are as fast as those that wait
//! forever: with a timeout of the socket (SO_RCVTIMEO, socket(7)) the kernel arms a timer for each read and disarms it.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::unix::thread::JoinHandleExt as _,
    ptr,
    sync::OnceLock,
    thread::JoinHandle,
    time::{Duration, Instant},
};

const SIGNAL: libc::c_int = libc::SIGURG;
/// Of a limit: how much later than it a call may end.
const SHARE_OF_LIMIT: u32 = 16;
/// So that a long limit is held to some ms, and a short one takes no time of its own.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// Interrupts the thread that made it, until it is dropped: its blocking calls fail with [`io::ErrorKind::Interrupted`].
pub(super) struct Tick {
    timer: libc::timer_t,
    /// A timer is bound to its thread.
    _stays: PhantomData<*const ()>,
}

impl Tick {
    /// One that is good for calls which are to end within a limit.
    ///
    /// # Errors
    /// When the kernel has no timer left (RLIMIT_SIGPENDING, `timer_create(2)`).
    pub(super) fn for_limit(limit: Duration) -> io::Result<Self> {
        prepare()?;
        let period = (limit / SHARE_OF_LIMIT).clamp(SHORTEST, LONGEST);
        // SAFETY: all-zero is a valid `sigevent`; the fields that matter are set below.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to values of this frame, which outlive the call.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let tick = Self { timer, _stays: PhantomData };
        // SAFETY: all-zero is a valid `timespec`, which may have padding on other targets.
        let mut time: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
        // A period is a second at the most.
        time.tv_sec = period.as_secs() as libc::time_t;
        time.tv_nsec = libc::c_long::from(period.subsec_nanos() as i32);
        let spec = libc::itimerspec { it_interval: time, it_value: time };
        // SAFETY: the timer is ours, and the old setting is not asked for.
        if unsafe { libc::timer_settime(tick.timer, 0, &raw const spec, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(tick)
    }

    /// Calls, again when interrupted, until the limit is over. That begins with the first interruption, so that a call which is
    /// not interrupted costs no look at the clock.
    ///
    /// # Errors
    /// Those of the call, and [`io::ErrorKind::TimedOut`].
    #[inline]
    pub(super) fn within<T>(
        &self,
        limit: Duration,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut since: Option<Instant> = None;
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if since.get_or_insert_with(Instant::now).elapsed() >= limit {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }
}

impl Drop for Tick {
    fn drop(&mut self) {
        // SAFETY: the timer is ours, and not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Interrupts what a thread waits in, once: it may be about to wait, and so is to be interrupted until it has ended. None where
/// [`prepare`] has failed.
pub(super) fn interrupt<T>(thread: &JoinHandle<T>) {
    // SAFETY: a thread that has not been joined is one, whether it has ended or not (`pthread_kill(3)`).
    unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL) };
}

/// Has the signal do nothing but interrupt: without SA_RESTART calls return instead of going on (`signal(7)`).
///
/// # Errors
/// Those of `sigaction(2)`, of which there are none.
pub(super) fn prepare() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        // SAFETY: all-zero is a valid `sigaction`: no flags, nothing masked.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing, which is safe at any time; the old one, which ignored it, is not asked for.
        match unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
        }
    });
    done.map_err(io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        thread,
    };

    #[test]
    fn a_call_that_waits_for_too_long_ends_and_others_do_not() {
        let (mut asked, mut answering) = UnixStream::pair().unwrap();
        let tick = Tick::for_limit(Duration::from_millis(80)).unwrap();
        let mut byte = [0];
        let begun = Instant::now();
        let error = tick.within(Duration::from_millis(80), || asked.read(&mut byte)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(80));

        // Interrupted some times on its way.
        let answer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(60));
            answering.write(b"x").unwrap()
        });
        assert_eq!(tick.within(Duration::from_secs(60), || asked.read(&mut byte)).unwrap(), 1);
        answer.join().unwrap();

        drop(tick);
        // No more interruptions: a read of its own waits for its socket's timeout.
        let (mut one, _other) = UnixStream::pair().unwrap();
        one.set_read_timeout(Some(Duration::from_millis(80))).unwrap();
        assert_eq!(one.read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
