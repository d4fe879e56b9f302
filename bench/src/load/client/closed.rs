//! A closed loop: the next request follows the last answer.

use super::{
    super::{
        books::Books,
        clock::Clock,
        error::Failure,
        pipe::{Pipe, READ_BYTES, Waits, send_rest, stream_socket, stream_socket_with},
        protocol::{Reader, Requests, Verdict},
        socket::receive,
        spec::Kind,
    },
    Task,
};
use std::{io, thread, time::Duration};

/// Pause after a request that failed, so that a server that is gone is not asked as fast as it goes.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// Over a connection that stays.
pub(super) fn run(task: &Task<'_>, mut pipe: Pipe, waits: Waits<'_>, books: &mut Books, clock: Clock) {
    let (mut number, mut connected) = (0, true);
    let stays = task.load.kind != Kind::UdpNew;
    let limit = task.load.times.limit;
    let mut before_ns = clock.now_ns();
    while before_ns < books.end_ns && !task.stop.is_set() {
        let asked = match connected {
            true => ask(&mut pipe, number, waits, limit),
            false => pipe
                .reconnect(task.load, task.address, waits)
                .and_then(|()| ask(&mut pipe, number, waits, limit)),
        };
        let mut now_ns = clock.now_ns();
        connected = count(books, before_ns, now_ns, asked);
        if !connected {
            thread::sleep(RETRY);
            now_ns = clock.now_ns();
        }
        connected &= stays;
        number += 1;
        before_ns = now_ns;
    }
}

/// Enters a request and how it went. Yields whether the connection is good for another.
#[inline(always)]
fn count(books: &mut Books, before_ns: u64, now_ns: u64, asked: io::Result<Asked>) -> bool {
    match asked {
        Ok(Asked { sent_bytes, received_bytes, verdict }) => {
            match verdict {
                Verdict::Answered => books.exchanged(before_ns, now_ns, sent_bytes, received_bytes),
                Verdict::Failed(failure) => {
                    books.sent(before_ns, before_ns, sent_bytes);
                    books.failed(before_ns, now_ns, failure);
                }
            }
            true
        }
        Err(error) => {
            books.not_sent(before_ns, now_ns, Failure::of(&error));
            false
        }
    }
}

/// One request and its answer.
struct Asked {
    sent_bytes: u64,
    received_bytes: u64,
    verdict: Verdict,
}

fn ask(pipe: &mut Pipe, number: u64, waits: Waits<'_>, limit: Duration) -> io::Result<Asked> {
    let sent_bytes = waits.within(limit, || pipe.send(number))?;
    let wanted = pipe.ids().map(|ids| number % ids);
    waits.within(limit, || {
        loop {
            match pipe.receive()? {
                // An answer to one that was given up is none to this.
                Some(answer) if answer.id == wanted => {
                    return Ok(Asked { sent_bytes, received_bytes: answer.bytes, verdict: answer.verdict });
                }
                _ => {}
            }
        }
    })
}

/// A connection for each request.
pub(super) fn run_connecting(task: &Task<'_>, waits: Waits<'_>, books: &mut Books, clock: Clock) {
    let Ok(mut requests) = Requests::of(task.load) else { return };
    let mut reader = Reader::of(task.load);
    let mut buffer = vec![0; READ_BYTES];
    let mut number = 0;
    let mut before_ns = clock.now_ns();
    while before_ns < books.end_ns && !task.stop.is_set() {
        requests.prepare(number);
        reader.reset();
        let asked = ask_once(task, waits, &requests, &mut reader, &mut buffer);
        let now_ns = clock.now_ns();
        if !count(books, before_ns, now_ns, asked) {
            thread::sleep(RETRY);
        }
        number += 1;
        before_ns = clock.now_ns();
    }
}

fn ask_once(
    task: &Task<'_>,
    waits: Waits<'_>,
    requests: &Requests,
    reader: &mut Reader,
    buffer: &mut [u8],
) -> io::Result<Asked> {
    let limit = task.load.times.limit;
    let socket = match task.load.each.fast_open {
        true => stream_socket_with(task.load, task.address, requests.present())?,
        false => {
            let socket = stream_socket(task.load, task.address, waits)?;
            let mut sent = 0;
            waits.within(limit, || send_rest(&socket, requests.present(), &mut sent))?;
            socket
        }
    };
    let (mut received_bytes, mut verdict) = (0, None);
    loop {
        let len = waits.within(limit, || receive(&socket, buffer))?;
        if len == 0 {
            // The server closes after its answer: only now the exchange is over.
            let verdict = verdict.or_else(|| reader.closed()).ok_or(io::ErrorKind::UnexpectedEof)?;
            let sent_bytes = requests.present().len() as u64;
            return Ok(Asked { sent_bytes, received_bytes, verdict });
        }
        received_bytes += len as u64;
        if verdict.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match reader.feed(&buffer[..len]) {
            (_, Some(Verdict::Failed(Failure::Malformed))) => return Err(io::ErrorKind::InvalidData.into()),
            (used, Some(_)) if used < len => return Err(io::ErrorKind::InvalidData.into()),
            (_, Some(verdict)) if task.load.each.client_closes => {
                let sent_bytes = requests.present().len() as u64;
                return Ok(Asked { sent_bytes, received_bytes, verdict });
            }
            (_, whole) => verdict = whole,
        }
    }
}
