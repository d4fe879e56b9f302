//! An open loop in which each request has a connection of its own: many are under way at once, from one thread.
//!
//! Latency counts from the intended time to the server's end of the connection, the handshake in between included. What limits
//! it: as many connections as [`Load::in_flight`](super::super::Load::in_flight) has, and free local ports; the wait for either
//! is in the latency, or the request is an error.

use super::{
    super::{
        books::Books,
        clock::{Clock, nanos, wait},
        error::Failure,
        pipe::{READ_BYTES, connecting},
        protocol::{Reader, Requests, Verdict},
        schedule::Schedule,
        socket::{receive, send},
        spec::Load,
    },
    Task,
    open::give_up_rest,
};
use rustix::{
    buffer::spare_capacity,
    event::{PollFlags, Timespec, epoll},
};
use std::{io, net::TcpStream, os::fd::OwnedFd};

/// Events that are handled before the schedule is looked at again.
const TURN: usize = 64;
/// Longest wait, so that who stops is heard, and shortest time between two looks at who waits too long, ns.
const LONGEST_WAIT_NS: u64 = 50_000_000;
const LOOK_NS: u64 = 1_000_000;

/// Sends all that the schedule has, and waits for the answers.
pub(super) fn run(task: &Task<'_>, schedule: Schedule, books: &mut Books, clock: Clock) {
    let Ok(mut flights) = Flights::new(task.load) else {
        // No epoll, no memory for a name: nothing was sent, and the books say so.
        let mut schedule = schedule;
        clock.sleep_until(books.end_ns, task.stop);
        give_up_rest(&mut schedule, clock.now_ns(), books);
        return;
    };
    let mut schedule = schedule;
    let over_ns = books.end_ns.saturating_add(flights.limit_ns);
    loop {
        let now_ns = clock.now_ns();
        let sends = schedule.peek() < books.end_ns;
        if now_ns >= over_ns || task.stop.is_set() || !sends && flights.is_empty() {
            break;
        }
        flights.begin_due(task, &mut schedule, books, clock);
        flights.wait(&schedule, books, clock);
        flights.expire(books, clock);
    }
    let failure = if task.stop.is_set() { Failure::Stopped } else { Failure::TimedOut };
    let now_ns = clock.now_ns();
    (0..flights.slots.len()).for_each(|n| flights.fail(n, now_ns, failure, books));
    give_up_rest(&mut schedule, now_ns, books);
}

/// A request with its connection.
struct Flight {
    /// None where the place is free.
    socket: Option<TcpStream>,
    intended_ns: u64,
    begun_ns: u64,
    /// Bytes of the request that were sent, and of the answer that came.
    sent: usize,
    received_bytes: u64,
    reader: Reader,
    verdict: Option<Verdict>,
}

struct Flights {
    epoll: OwnedFd,
    slots: Vec<Flight>,
    free: Vec<usize>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    requests: Requests,
    limit_ns: u64,
    looked_ns: u64,
}

impl Flights {
    fn new(load: &Load) -> io::Result<Self> {
        let flight = || Flight {
            socket: None,
            intended_ns: 0,
            begun_ns: 0,
            sent: 0,
            received_bytes: 0,
            reader: Reader::of(load),
            verdict: None,
        };
        let most = load.in_flight as usize;
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: (0..most).map(|_| flight()).collect(),
            free: (0..most).rev().collect(),
            events: Vec::with_capacity(TURN),
            buffer: vec![0; READ_BYTES],
            requests: Requests::of(load).map_err(io::Error::other)?,
            limit_ns: nanos(load.times.limit),
            looked_ns: 0,
        })
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Begins what is due, at most a turn of it.
    fn begin_due(&mut self, task: &Task<'_>, schedule: &mut Schedule, books: &mut Books, clock: Clock) {
        for _ in 0..TURN {
            let (due_ns, now_ns) = (schedule.peek(), clock.now_ns());
            if due_ns > now_ns || due_ns >= books.end_ns {
                return;
            }
            let Some(n) = self.free.pop() else { return };
            schedule.advance();
            books.sent(due_ns, now_ns, self.requests.present().len() as u64);
            let opened = connecting(task.address).and_then(|socket| {
                let what = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(n as u64), what)?;
                Ok(socket)
            });
            let slot = &mut self.slots[n];
            (slot.intended_ns, slot.begun_ns, slot.sent, slot.received_bytes) = (due_ns, now_ns, 0, 0);
            slot.verdict = None;
            slot.reader.reset();
            match opened {
                Ok(socket) => slot.socket = Some(socket),
                Err(error) => {
                    self.free.push(n);
                    books.failed(due_ns, clock.now_ns(), Failure::of(&error));
                }
            }
        }
    }

    /// Waits for an event or for what is due, and handles the events.
    fn wait(&mut self, schedule: &Schedule, books: &mut Books, clock: Clock) {
        let now_ns = clock.now_ns();
        let mut limit_ns = LONGEST_WAIT_NS.min(self.limit_ns);
        let due_ns = schedule.peek();
        if due_ns < books.end_ns && !self.free.is_empty() {
            limit_ns = limit_ns.min(due_ns.saturating_sub(now_ns));
        }
        // An epoll descriptor can be waited for itself, to the ns, which epoll_wait cannot before 5.11.
        if !matches!(wait(&self.epoll, PollFlags::IN, limit_ns), Ok(ready) if !ready.is_empty()) {
            return;
        }
        self.events.clear();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&now)).is_err() {
            // Interrupted: it is looked at again.
            return;
        }
        for k in 0..self.events.len() {
            let n = usize::try_from(self.events[k].data.u64()).unwrap_or(usize::MAX);
            if n < self.slots.len() {
                self.go_on(n, books, clock);
            }
        }
    }

    /// Does what can be done for one.
    fn go_on(&mut self, n: usize, books: &mut Books, clock: Clock) {
        let slot = &mut self.slots[n];
        match advance(slot, self.requests.present(), &mut self.buffer) {
            Ok(None) => {}
            Ok(Some(verdict)) => {
                let now_ns = clock.now_ns();
                match verdict {
                    Verdict::Answered => {
                        books.answered(slot.intended_ns, slot.begun_ns, now_ns, slot.received_bytes);
                    }
                    Verdict::Failed(failure) => books.failed(slot.intended_ns, now_ns, failure),
                }
                // Closing it takes it off the epoll descriptor.
                slot.socket = None;
                self.free.push(n);
            }
            Err(error) => self.fail(n, clock.now_ns(), Failure::of(&error), books),
        }
    }

    fn fail(&mut self, n: usize, now_ns: u64, failure: Failure, books: &mut Books) {
        if self.slots[n].socket.take().is_some() {
            books.failed(self.slots[n].intended_ns, now_ns, failure);
            self.free.push(n);
        }
    }

    /// Gives up what has waited too long.
    fn expire(&mut self, books: &mut Books, clock: Clock) {
        let now_ns = clock.now_ns();
        if now_ns < self.looked_ns + LOOK_NS.max(self.limit_ns / 100) {
            return;
        }
        self.looked_ns = now_ns;
        for n in 0..self.slots.len() {
            if self.slots[n].begun_ns.saturating_add(self.limit_ns) <= now_ns {
                self.fail(n, now_ns, Failure::TimedOut, books);
            }
        }
    }
}

/// Sends and reads what can be. Yields how the request went when the server has closed the connection.
fn advance(slot: &mut Flight, request: &[u8], buffer: &mut [u8]) -> io::Result<Option<Verdict>> {
    // Events may come late for a place that has changed hands.
    let Some(socket) = &slot.socket else { return Ok(None) };
    while slot.sent < request.len() {
        match send(socket, &request[slot.sent..]) {
            Ok(n) => slot.sent += n,
            // Also of a connection that is not made yet.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    loop {
        let len = match receive(socket, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if len == 0 {
            let verdict = slot.verdict.or_else(|| slot.reader.closed());
            return verdict.map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        slot.received_bytes += len as u64;
        if slot.verdict.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match slot.reader.feed(&buffer[..len]) {
            (_, Some(Verdict::Failed(Failure::Malformed))) => return Err(io::ErrorKind::InvalidData.into()),
            (used, Some(_)) if used < len => return Err(io::ErrorKind::InvalidData.into()),
            (_, whole) => slot.verdict = whole,
        }
    }
}
