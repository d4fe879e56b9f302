//! A server's thread over TCP: takes a connection, serves it to its end, and takes the next.

use super::{
    super::{
        error::Failure,
        outcome::Served,
        protocol::Answerer,
        service::Thinker,
        socket::{receive, send},
    },
    DRAIN, Shared,
    sink::Sink,
};
use rustix::net::{SocketFlags, acceptfrom_with};
use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Room for one read, bytes.
const READ_BYTES: usize = 1 << 16;
/// Room for one read of a stream that is not answered, bytes.
const SINK_BYTES: usize = 1 << 17;
/// Pause after a connection that could not be taken, for want of descriptors.
const RETRY: Duration = Duration::from_millis(10);

/// Until the server is stopped.
pub(super) fn serve(listener: &TcpListener, shared: &Shared, number: u32) -> (Served, Option<Sink>) {
    let one_way = shared.load.kind.is_one_way();
    let mut thread = Thread {
        shared,
        served: Served::default(),
        thinker: shared.thinker(number),
        answerer: Answerer::of(&shared.load),
        sink: one_way.then(|| Sink::new(&shared.load)),
        buffer: vec![0; if one_way { SINK_BYTES } else { READ_BYTES }],
    };
    while !shared.stop.is_set() {
        match accept(listener) {
            Ok((_, address)) if !shared.serves(address) => thread.served.strangers += 1,
            Ok((stream, _)) => {
                thread.served.connections += 1;
                match &mut thread.sink {
                    Some(_) => thread.take(&stream),
                    None => thread.answer(&stream),
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => thread::sleep(RETRY),
        }
    }
    (thread.served, thread.sink)
}

/// A connection and whose it is. Unlike [`TcpListener::accept`] it ends when it is interrupted.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = acceptfrom_with(listener, SocketFlags::CLOEXEC)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    Ok((stream.into(), address.ok_or(ErrorKind::ConnectionAborted)?))
}

struct Thread<'a> {
    shared: &'a Shared,
    served: Served,
    thinker: Thinker,
    answerer: Answerer,
    sink: Option<Sink>,
    buffer: Vec<u8>,
}

impl Thread<'_> {
    /// Answers until the client closes, or the answer does.
    fn answer(&mut self, stream: &TcpStream) {
        self.answerer.reset();
        while !self.shared.stop.is_set() {
            let len = match receive(stream, &mut self.buffer) {
                Ok(0) => return,
                Ok(len) => len,
                Err(error) if is_pause(&error) => continue,
                // A client that is gone counts the error itself.
                Err(_) => return,
            };
            self.served.received_bytes += len as u64;
            match self.answer_all(stream, len) {
                Ok(false) => {}
                Ok(true) => return,
                Err(_) => {
                    self.served.failed += 1;
                    return;
                }
            }
        }
    }

    /// Answers what requests there are in what was read. Yields whether the connection is to be closed.
    fn answer_all(&mut self, stream: &TcpStream, len: usize) -> Result<bool, Failure> {
        let mut from = 0;
        while from < len {
            let (used, whole) = self.answerer.feed(&self.buffer[from..len])?;
            from += used;
            if !whole {
                return Ok(false);
            }
            self.thinker.think();
            let response = self.answerer.response();
            write_all(stream, response, self.shared).map_err(|error| Failure::of(&error))?;
            self.served.requests += 1;
            self.served.sent_bytes += response.len() as u64;
            if self.answerer.closes() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes what comes until the client closes; a stopped server takes what is under way.
    fn take(&mut self, stream: &TcpStream) {
        let mut stopped: Option<Instant> = None;
        loop {
            if self.shared.stop.is_set() && stopped.get_or_insert_with(Instant::now).elapsed() > DRAIN {
                return;
            }
            match receive(stream, &mut self.buffer) {
                Ok(0) => return,
                Ok(len) => {
                    self.served.requests += 1;
                    self.served.received_bytes += len as u64;
                    if let Some(sink) = &mut self.sink {
                        sink.count(len as u64, self.shared.clock.now_ns(), &self.shared.origin);
                    }
                    self.thinker.think();
                }
                Err(error) if is_pause(&error) && !self.shared.stop.is_set() => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether there is nothing for now, and may be later.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Writes all of it, unless the server is stopped.
fn write_all(stream: &TcpStream, mut bytes: &[u8], shared: &Shared) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(stream, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if is_pause(&error) && !shared.stop.is_set() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
