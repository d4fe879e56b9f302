//! Loads to which nothing is answered: a stream's writes, a flood's datagrams. What counts is what the server received.

use super::{
    super::{
        LoadError,
        books::Books,
        clock::{Clock, nanos},
        error::Failure,
        pipe::{Waits, datagram_socket, stream_socket},
        schedule::Schedule,
        socket::send,
        spec::Load,
    },
    Task,
    closed::RETRY,
};
use std::{
    io,
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// How long a write waits before the time is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A socket and what goes into it.
pub(super) struct Sender {
    socket: Socket,
    payload: Vec<u8>,
}

enum Socket {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Sender {
    /// To a server, as the calling thread's namespace reaches it.
    pub(super) fn connect(load: &Load, address: SocketAddr) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Connect { load: load.name.clone(), address, source };
        let socket = open(load, address).map_err(failed)?;
        Ok(Self { socket, payload: vec![b'd'; load.request_bytes as usize] })
    }
}

fn open(load: &Load, address: SocketAddr) -> io::Result<Socket> {
    if load.kind.is_datagram() {
        return Ok(Socket::Datagrams(datagram_socket(load, address, None, Waits::Timed)?));
    }
    let socket = stream_socket(load, address, Waits::Timed)?;
    socket.set_write_timeout(Some(LOOK))?;
    Ok(Socket::Stream(socket))
}

/// As fast as it goes, or by a schedule, which is caught up with at once after a delay.
pub(super) fn run(
    task: &Task<'_>,
    mut sender: Sender,
    mut schedule: Option<Schedule>,
    books: &mut Books,
    clock: Clock,
) {
    let limit_ns = nanos(task.load.times.limit);
    let over_ns = books.end_ns.saturating_add(limit_ns);
    let mut now_ns = clock.now_ns();
    while now_ns < over_ns && !task.stop.is_set() {
        let due_ns = schedule.as_ref().map_or(now_ns, Schedule::peek);
        if due_ns >= books.end_ns {
            break;
        }
        if due_ns > now_ns {
            clock.sleep_until(due_ns, task.stop);
            now_ns = clock.now_ns();
            continue;
        }
        let went = sender.send(task, due_ns, books, clock, now_ns + limit_ns);
        if let Some(schedule) = &mut schedule {
            schedule.advance();
        }
        if went.is_err() && matches!(sender.socket, Socket::Stream(_)) {
            match open(task.load, task.address) {
                Ok(socket) => sender.socket = socket,
                Err(_) => thread::sleep(RETRY),
            }
        }
        now_ns = clock.now_ns();
    }
    if let Some(schedule) = &mut schedule {
        super::open::give_up_rest(schedule, now_ns, books);
    }
}

impl Sender {
    /// Sends one, and enters how that went.
    fn send(
        &mut self,
        task: &Task<'_>,
        due_ns: u64,
        books: &mut Books,
        clock: Clock,
        until_ns: u64,
    ) -> io::Result<()> {
        let sent = match &mut self.socket {
            Socket::Datagrams(socket) => send(socket, &self.payload),
            Socket::Stream(socket) => write(socket, &self.payload, task, clock, until_ns),
        };
        match sent {
            Ok(bytes) => books.passed_on(due_ns, clock.now_ns(), bytes as u64),
            Err(error) => {
                books.not_sent(due_ns, clock.now_ns(), Failure::of(&error));
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Writes all of it, unless the time is over. Yields how much was written.
fn write(
    socket: &mut TcpStream,
    payload: &[u8],
    task: &Task<'_>,
    clock: Clock,
    until_ns: u64,
) -> io::Result<usize> {
    let mut written = 0;
    while written < payload.len() {
        match send(socket, &payload[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if task.stop.is_set() {
                    break;
                }
                if clock.now_ns() >= until_ns {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
