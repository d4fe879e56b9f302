//! A delay line: two interfaces whose frames reach each other after a set time, for kernels without netem.
//!
//! Needs CAP_NET_ADMIN and `/dev/net/tun`. Each end is a TAP interface in a namespace; a thread for each direction reads the
//! frames that one end sends, holds them for their time, and hands them to the other end. Yields a link with a known delay, if
//! wanted a known rate, and counts of what it carried and what it lost. The interfaces have no segmentation offload: every
//! frame is one packet of the MTU at most. They go when the line is dropped.
//!
//! A frame is never early. How late it may be is up to the scheduler: on an idle machine some 0.1 ms, on a busy one as long as
//! the thread has to wait for a CPU; [`LineCounts::worst_lateness`] tells.

mod queue;
mod tap;

use super::netlink::Mac;
use super::traffic::sock::{Stop, Wake};
use super::{LabError, Netns};
use queue::Queue;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tap::Tap;

/// Frames that are read before those that are due are looked at: a flood must not hold them back.
const BATCH: usize = 64;

/// What a delay line does to each frame, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineConfig {
    /// How long a frame is on its way.
    pub delay: Duration,
    /// How fast frames follow each other, bits of the Ethernet frame a second; none for as fast as they come. The time that a
    /// frame takes to be sent is in addition to the delay.
    pub rate_bits_per_second: Option<NonZeroU64>,
    /// Most that is on its way, bytes. A frame for which there is no room is lost, and counted.
    pub room_bytes: NonZeroUsize,
}

impl LineConfig {
    /// Room for a gigabit a second over 100 ms.
    const ROOM_BYTES: NonZeroUsize = NonZeroUsize::new(16 << 20).unwrap();

    /// A delay, and no limit of the rate.
    #[must_use]
    pub const fn delay(delay: Duration) -> Self {
        Self { delay, rate_bits_per_second: None, room_bytes: Self::ROOM_BYTES }
    }
}

/// What became of the frames of one direction. Whole once the line is idle: a frame that is on its way is in no count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Handed to the other end.
    pub frames: u64,
    /// Of those, with their Ethernet headers.
    pub bytes: u64,
    /// For which there was no room.
    pub dropped: u64,
    /// Not taken by the other end: it is down.
    pub refused: u64,
    /// Lost by the interface before the line could take them: its queue was full, or it was down.
    pub overrun: u64,
    /// How much later than its time the latest of them was handed over.
    pub worst_lateness: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    worst_lateness_ns: AtomicU64,
}

impl Counts {
    fn read(&self) -> LineCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LineCounts {
            frames: of(&self.frames),
            bytes: of(&self.bytes),
            dropped: of(&self.dropped),
            refused: of(&self.refused),
            overrun: 0,
            worst_lateness: Duration::from_nanos(of(&self.worst_lateness_ns)),
        }
    }
}

/// One end of a line.
pub(super) struct LineEnd<'a> {
    pub(super) netns: &'a Netns,
    /// Of the interface.
    pub(super) name: &'a str,
    pub(super) mac: Mac,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    counts: Arc<Counts>,
    from: Arc<Tap>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Debug)]
struct Ending {
    /// Wakes the threads; set after `over`.
    wake: Stop,
    over: AtomicBool,
}

/// A running delay line.
#[derive(Debug)]
pub struct Line {
    config: LineConfig,
    ending: Arc<Ending>,
    lanes: Vec<Lane>,
}

impl Line {
    /// Joins two namespaces. The interfaces are there, and down.
    pub(super) fn join(ends: [&LineEnd<'_>; 2], mtu: u32, config: LineConfig) -> Result<Self, LabError> {
        let open = |end: &LineEnd<'_>| Tap::open(end.netns, end.name, end.mac, mtu).map(Arc::new);
        let [one, other] = [open(ends[0])?, open(ends[1])?];
        let wake = Stop::new().map_err(LabError::file("make a signal for", tap::DEVICE))?;
        let ending = Arc::new(Ending { wake, over: AtomicBool::new(false) });
        let mut line = Self { config, ending, lanes: Vec::new() };
        for (from, to) in [(&one, &other), (&other, &one)] {
            let lane = line.start_lane(Arc::clone(from), Arc::clone(to))?;
            line.lanes.push(lane);
        }
        Ok(line)
    }

    fn start_lane(&self, from: Arc<Tap>, to: Arc<Tap>) -> Result<Lane, LabError> {
        let counts = Arc::new(Counts::default());
        let (ending, queue, shared) =
            (Arc::clone(&self.ending), Queue::new(self.config), Arc::clone(&counts));
        let tap = Arc::clone(&from);
        let carrying = move || carry(&from, &to, queue, &ending, &shared);
        let thread = thread::Builder::new()
            .name("lab-line".to_owned())
            .spawn(carrying)
            .map_err(LabError::file("start a thread for", tap::DEVICE))?;
        Ok(Lane { counts, from: tap, thread })
    }

    /// What it was made with.
    #[must_use]
    pub const fn config(&self) -> LineConfig {
        self.config
    }

    /// What became of the frames so far: of those from the first end to the second, and of those the other way.
    ///
    /// # Errors
    /// [`LabError::File`] when the kernel does not tell what the interfaces lost.
    pub fn counts(&self) -> Result<[LineCounts; 2], LabError> {
        let of = |lane: usize| -> Result<LineCounts, LabError> {
            let Some(lane) = self.lanes.get(lane) else { return Ok(LineCounts::default()) };
            Ok(LineCounts { overrun: lane.from.lost()?, ..lane.counts.read() })
        };
        Ok([of(0)?, of(1)?])
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ending.over.store(true, Ordering::Relaxed);
        self.ending.wake.set();
        for lane in self.lanes.drain(..) {
            match lane.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a delay line ended before its time"),
                Err(_) => tracing::warn!("the thread of a delay line panicked"),
            }
        }
    }
}

/// One direction, until the line ends.
fn carry(from: &Tap, to: &Tap, mut queue: Queue, ending: &Ending, counts: &Counts) -> io::Result<()> {
    // By default a thread may be woken 50 us late (`timer_slack_ns`, prctl(2)); where that cannot be set, the lateness tells.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut frame = vec![0; tap::LONGEST_FRAME];
    while !ending.over.load(Ordering::Relaxed) {
        let more = receive(from, &mut queue, &mut frame, counts)?;
        hand_over(to, &mut queue, &mut frame, counts)?;
        if more {
            continue;
        }
        let left = queue.due().map(|due| due.saturating_duration_since(Instant::now()));
        if ending.wake.wait(from, left)? == Wake::Stopped {
            break;
        }
    }
    Ok(())
}

/// Takes what has come, at most a batch of it. Whether there may be more.
fn receive(from: &Tap, queue: &mut Queue, frame: &mut [u8], counts: &Counts) -> io::Result<bool> {
    for _ in 0..BATCH {
        let Some(length) = from.read(frame)? else { return Ok(false) };
        let Some(frame) = frame.get(..length) else { continue };
        if !queue.push(frame, Instant::now()) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(true)
}

/// Hands over those whose time has come.
fn hand_over(to: &Tap, queue: &mut Queue, frame: &mut [u8], counts: &Counts) -> io::Result<()> {
    while let Some((due, length)) = queue.pop(Instant::now(), frame) {
        let late = Instant::now().saturating_duration_since(due).as_nanos();
        counts.worst_lateness_ns.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Counted first: who has received a frame finds it counted.
        counts.frames.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if !to.write(frame.get(..length).unwrap_or_default())? {
            counts.frames.fetch_sub(1, Ordering::Relaxed);
            counts.bytes.fetch_sub(length as u64, Ordering::Relaxed);
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
