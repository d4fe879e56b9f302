//! The client: a thread for each connection, and the sum of what they saw.
//!
//! Needs a [`Profile`] and the address of a server for each of its parts: [`Servers`](super::Servers) of this library, or a name
//! server or web server of any kind. Yields an [`Outcome`] for each part. All sockets are opened in the network namespace of
//! the calling thread.

mod closed;
mod connecting;
mod one_way;
mod open;
mod window;

use super::{
    LoadError, Stop,
    books::Books,
    clock::{Clock, Line, exact_timers},
    descriptors,
    outcome::Outcome,
    pipe::{Pipe, Waits},
    schedule::Schedule,
    spec::{Load, Profile},
    tick::Tick,
};
use crate::cpu::{self, Pinned, Pinning, Used};
use std::{
    net::SocketAddr,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

/// How a client is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where its threads run.
    pub pinning: Pinning,
    /// Ends it before its time.
    pub stop: Stop,
}

/// What a thread of a client needs.
struct Task<'a> {
    load: &'a Load,
    address: SocketAddr,
    stop: &'a Stop,
    /// Which of the load's connections it is.
    connection: u32,
}

/// What it has got ready before the start.
enum Ready {
    /// A connection that stays, in a closed loop.
    Closed(Pipe, Tick),
    /// The same in an open loop.
    Open(Pipe, Schedule),
    /// Nothing but the tick: each request has a connection of its own.
    EachClosed(Option<Tick>),
    /// The same in an open loop.
    EachOpen(Schedule),
    /// Where there are no answers.
    OneWay(one_way::Sender),
}

/// What a thread did.
struct Done {
    books: Books,
    /// When it was done, ns since the start.
    over_ns: u64,
    busy: Duration,
    not_pinned: Option<String>,
}

/// Runs all parts of a profile at once, from the same start.
///
/// # Errors
/// [`LoadError::Spec`] and its like for a profile that cannot be, [`LoadError::Connect`] where a server is not there at the
/// start. What fails later is counted, and the connection is made again.
pub fn run(
    profile: &Profile,
    addresses: &[SocketAddr],
    options: &Options,
) -> Result<Vec<Outcome>, LoadError> {
    profile.check()?;
    if addresses.len() != profile.parts.len() {
        return Err(LoadError::Addresses { parts: profile.parts.len(), addresses: addresses.len() });
    }
    let pinned = options.pinning.resolve();
    let threads: usize = profile.parts.iter().map(Load::threads).sum();
    let line = Line::new(threads);
    // A part that cannot begin ends the others; one that is over does not.
    let stop = Stop::default();
    thread::scope(|scope| {
        let mut number = 0;
        let mut running: Vec<Vec<ScopedJoinHandle<'_, _>>> = Vec::new();
        for (load, address) in profile.parts.iter().zip(addresses) {
            let of_part = (0..load.connections).map(|connection| {
                let task = Task { load, address: *address, stop: &options.stop, connection };
                let (line, stop, pinned, nth) = (&line, &stop, &pinned, number + connection as usize);
                scope.spawn(move || task.run(line, stop, pinned, nth))
            });
            running.push(of_part.collect());
            number += load.threads();
        }
        let joined = running.into_iter().zip(&profile.parts).map(|(threads, load)| {
            let done = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| LoadError::Panicked { load: load.name.clone() })?);
            // All of them are waited for, whatever the first says.
            done.collect::<Vec<_>>().into_iter().collect::<Result<Vec<Done>, _>>().map(|done| (load, done))
        });
        let joined: Vec<_> = joined.collect();
        let close = |(load, done)| outcome(load, done, &pinned, &options.stop);
        joined.into_iter().map(|part| part.and_then(close)).collect()
    })
}

fn outcome(load: &Load, done: Vec<Done>, pinned: &Pinned, stop: &Stop) -> Result<Outcome, LoadError> {
    let mut pinned = pinned.clone();
    let (mut books, mut over_ns, mut busy) = (Books::new(load)?, 0, Duration::ZERO);
    for thread in done {
        books.add(&thread.books);
        over_ns = over_ns.max(thread.over_ns);
        busy += thread.busy;
        if pinned.why_not.is_none() {
            pinned.why_not = thread.not_pinned;
        }
    }
    pinned.cpus.truncate(load.threads());
    let (over, whole) = (Duration::from_nanos(over_ns), load.times.warm_up + load.times.measure);
    let mut outcome = books.close(load, over_ns, Used::of(busy, over), pinned);
    if stop.is_set() && over < whole {
        let seconds = |time: Duration| time.saturating_sub(load.times.warm_up).as_secs_f64();
        outcome.partial = Some(format!("stopped after {:.1} of {} s", seconds(over), seconds(whole)));
    }
    Ok(outcome)
}

impl Task<'_> {
    /// From connecting to the last answer. `abort` is set when a thread cannot begin.
    fn run(&self, line: &Line, abort: &Stop, pinned: &Pinned, nth: usize) -> Result<Done, LoadError> {
        let not_pinned = pinned.apply(nth);
        exact_timers();
        descriptors::leave();
        let ready = self.prepare().and_then(|ready| Ok((ready, Books::new(self.load)?)));
        if ready.is_err() {
            abort.set();
        }
        let clock = line.wait();
        let (ready, mut books) = ready?;
        let before = cpu::thread_time();
        if !abort.is_set() {
            self.ask(ready, &mut books, clock);
        }
        Ok(Done { books, over_ns: clock.now_ns(), busy: cpu::thread_time() - before, not_pinned })
    }

    fn prepare(&self) -> Result<Ready, LoadError> {
        let kind = &self.load.kind;
        if kind.is_one_way() {
            return one_way::Sender::connect(self.load, self.address).map(Ready::OneWay);
        }
        let tick = || {
            Tick::for_limit(self.load.times.limit)
                .map_err(|source| LoadError::System { action: "make a timer for a client's thread", source })
        };
        let connect = |waits: Waits<'_>| Pipe::connect(self.load, self.address, self.connection, waits);
        Ok(match (Schedule::of(self.load, self.connection), kind.connects_each()) {
            (None, false) => {
                let tick = tick()?;
                Ready::Closed(connect(Waits::Ticked(&tick))?, tick)
            }
            (Some(schedule), false) => Ready::Open(connect(Waits::Never)?, schedule),
            // Data that goes with a SYN cannot be told to be sent or not when the call is interrupted.
            (None, true) if self.load.each.fast_open => Ready::EachClosed(None),
            (None, true) => Ready::EachClosed(Some(tick()?)),
            (Some(schedule), true) => Ready::EachOpen(schedule),
        })
    }

    fn ask(&self, ready: Ready, books: &mut Books, clock: Clock) {
        match ready {
            Ready::OneWay(sender) => {
                one_way::run(self, sender, Schedule::of(self.load, self.connection), books, clock);
            }
            Ready::Closed(pipe, tick) => closed::run(self, pipe, Waits::Ticked(&tick), books, clock),
            Ready::Open(pipe, schedule) => open::run(self, pipe, schedule, books, clock),
            Ready::EachClosed(tick) => {
                let waits = tick.as_ref().map_or(Waits::Timed, Waits::Ticked);
                closed::run_connecting(self, waits, books, clock);
            }
            Ready::EachOpen(schedule) => connecting::run(self, schedule, books, clock),
        }
    }
}
