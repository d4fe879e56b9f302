//! An open loop over a connection that stays: requests are sent on their schedule, whether or not those before are answered.
//!
//! One thread sends and reads, and waits for whichever is next. What limits it: a turn takes some four system calls, so that
//! one connection carries about as many requests a second as the closed loop would, and more of them take more connections;
//! and no more requests can be under way than can be told apart, see [`Window`].

use super::{
    super::{
        books::Books,
        clock::{Clock, nanos, wait},
        error::Failure,
        pipe::{Pipe, Waits},
        protocol::Verdict,
        schedule::Schedule,
    },
    Task,
    closed::RETRY,
    window::Window,
};
use rustix::event::PollFlags;
use std::{io, thread};

/// Requests that are sent, and answers that are read, before the other is looked at again.
const TURN: usize = 64;
/// Longest wait, so that who stops is heard, ns.
const LONGEST_WAIT_NS: u64 = 50_000_000;

/// Sends all that the schedule has, and waits for the answers.
pub(super) fn run(task: &Task<'_>, pipe: Pipe, schedule: Schedule, books: &mut Books, clock: Clock) {
    let limit_ns = nanos(task.load.times.limit);
    let window = Window::new(pipe.ids(), task.load.connections);
    let mut turn = Loop { task, pipe, schedule, window, limit_ns, blocked: false };
    let over_ns = books.end_ns.saturating_add(limit_ns);
    loop {
        let now_ns = clock.now_ns();
        let sends = turn.schedule.peek() < books.end_ns;
        if now_ns >= over_ns || task.stop.is_set() || !sends && turn.window.is_empty() {
            break;
        }
        let went = turn.send(now_ns, books, clock).and_then(|()| turn.wait(books, clock)).and_then(|ready| {
            let reads = ready.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP);
            if reads { turn.read(books, clock) } else { Ok(()) }
        });
        match went {
            Ok(()) => turn.expire(books, clock),
            Err(error) => turn.recover(&error, books, clock),
        }
    }
    turn.close(books, clock);
}

struct Loop<'a> {
    task: &'a Task<'a>,
    pipe: Pipe,
    schedule: Schedule,
    window: Window,
    limit_ns: u64,
    /// Whether the socket takes no more for now.
    blocked: bool,
}

impl Loop<'_> {
    /// Sends what is due, at most a turn of it.
    fn send(&mut self, mut now_ns: u64, books: &mut Books, clock: Clock) -> io::Result<()> {
        for _ in 0..TURN {
            let due_ns = self.schedule.peek();
            if due_ns > now_ns || due_ns >= books.end_ns || !self.window.has_room() {
                return Ok(());
            }
            match self.pipe.send(self.window.next()) {
                Ok(bytes) => {
                    books.sent(due_ns, now_ns, bytes);
                    self.window.push(due_ns, now_ns);
                    self.schedule.advance();
                    self.blocked = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            now_ns = clock.now_ns();
        }
        Ok(())
    }

    /// Waits for what is next: an answer, the schedule, room to send, a request that is to be given up.
    fn wait(&mut self, books: &Books, clock: Clock) -> io::Result<PollFlags> {
        if self.pipe.has_unread() {
            return Ok(PollFlags::IN);
        }
        let now_ns = clock.now_ns();
        let mut until_ns = now_ns + LONGEST_WAIT_NS;
        let due_ns = self.schedule.peek();
        if due_ns < books.end_ns && !self.blocked && self.window.has_room() {
            until_ns = until_ns.min(due_ns);
        }
        if let Some(deadline_ns) = self.window.deadline(self.limit_ns) {
            until_ns = until_ns.min(deadline_ns);
        }
        let what = if self.blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        wait(&self.pipe, what, until_ns.saturating_sub(now_ns))
    }

    /// Reads what has come, at most a turn of it.
    fn read(&mut self, books: &mut Books, clock: Clock) -> io::Result<()> {
        for _ in 0..TURN {
            let answer = match self.pipe.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            };
            if let Some(answer) = answer {
                let now_ns = clock.now_ns();
                match (self.window.take(answer.id), answer.verdict) {
                    // To one that was given up.
                    (None, _) => {}
                    (Some((intended_ns, sent_ns)), Verdict::Answered) => {
                        books.answered(intended_ns, sent_ns, now_ns, answer.bytes);
                    }
                    (Some((intended_ns, _)), Verdict::Failed(failure)) => {
                        books.failed(intended_ns, now_ns, failure);
                    }
                }
            }
            // The next one is due: it does not wait for answers to be read.
            if self.window.is_empty() || self.schedule.peek() <= clock.now_ns() && !self.blocked {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives up what has waited too long. Answers over a stream come in order, so that the connection is of no use then.
    fn expire(&mut self, books: &mut Books, clock: Clock) {
        let now_ns = clock.now_ns();
        if self.window.expire(now_ns, self.limit_ns, books) && self.pipe.ids().is_none() {
            self.recover(&io::ErrorKind::TimedOut.into(), books, clock);
        }
    }

    /// After an error: that of one datagram, or of a connection and all that is under way over it.
    fn recover(&mut self, error: &io::Error, books: &mut Books, clock: Clock) {
        let (now_ns, failure) = (clock.now_ns(), Failure::of(error));
        if self.pipe.ids().is_some() {
            if !self.window.give_up(now_ns, failure, books) {
                // It says nothing of what was sent: that of this socket, which may pass.
                thread::sleep(RETRY);
            }
            return;
        }
        self.window.clear(now_ns, failure, books);
        self.blocked = false;
        // What is due meanwhile waits, as it would at any client.
        if self.pipe.reconnect(self.task.load, self.task.address, Waits::Never).is_err() {
            thread::sleep(RETRY);
        }
    }

    /// Enters what has no answer, and what was not sent though it was due.
    fn close(mut self, books: &mut Books, clock: Clock) {
        let now_ns = clock.now_ns();
        let failure = if self.task.stop.is_set() { Failure::Stopped } else { Failure::TimedOut };
        self.window.clear(now_ns, failure, books);
        give_up_rest(&mut self.schedule, now_ns, books);
    }
}

/// Enters what a schedule had until now and was not sent.
pub(super) fn give_up_rest(schedule: &mut Schedule, now_ns: u64, books: &mut Books) {
    while schedule.peek() < books.end_ns.min(now_ns) {
        books.not_sent(schedule.peek(), now_ns, Failure::Unsent);
        schedule.advance();
    }
}
