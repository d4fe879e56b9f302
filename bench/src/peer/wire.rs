//! The control connection: greetings, proofs, and then messages with a length and a tag.
//!
//! ```text
//! both:    MAGIC (16 bytes)  version (u16)  nonce (32 bytes)
//! client:  proof (32 bytes)
//! server:  1, proof (32 bytes); or 0, and the connection is closed
//! then:    length (u32)  tag (32 bytes)  message (JSON)
//! ```

use super::{
    PROTOCOL, PeerError,
    auth::{End, Greetings, NONCE, Session, TAG, Token, random},
};
use crate::load::{Profile, Served, Stop};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

const MAGIC: &[u8; 16] = b"nettrace bench\r\n";
const GREETING: usize = MAGIC.len() + 2 + NONCE;
/// How long greetings and proofs may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// How often a wait looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);
/// Longest message to a server, and to a client, which has throughput by slices in it.
pub(super) const TO_SERVER: usize = 1 << 20;
pub(super) const TO_CLIENT: usize = 64 << 20;

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Open data ports for these loads.
    Start(Profile),
    /// Close them, and tell what came.
    Stop,
}

/// What a server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Response {
    /// The ports, in the order of the parts.
    Ready(Vec<u16>),
    /// It will not, and why.
    Refused(String),
    /// There is another experiment.
    Busy,
    /// What came, in the order of the parts, and why that is not all.
    Served(Vec<Served>, Option<String>),
}

/// A control connection after both ends have proved that they know the token.
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) address: SocketAddr,
    session: Session,
    end: End,
    sent: u64,
    received: u64,
}

/// Why a wait for a message ended without one.
#[derive(Debug)]
pub(super) enum Waited {
    /// The time is over, or who waits was stopped.
    TimeOver,
    Failed(PeerError),
}

impl Connection {
    /// Greets a peer and proves each end to the other.
    pub(super) fn establish(stream: TcpStream, end: End, token: &Token) -> Result<Self, PeerError> {
        let address = stream
            .peer_addr()
            .map_err(|source| PeerError::System { action: "name the peer of a connection", source })?;
        let lost = |source| PeerError::Lost { address, doing: "greet", source };
        stream.set_nodelay(true).map_err(lost)?;
        stream.set_write_timeout(Some(HANDSHAKE)).map_err(lost)?;
        let mut wait = Wait { stream: &stream, deadline: Instant::now() + HANDSHAKE, stop: None };
        let ours = random::<NONCE>()?;
        let mut greeting = MAGIC.to_vec();
        greeting.extend_from_slice(&PROTOCOL.to_be_bytes());
        greeting.extend_from_slice(&ours);
        (&stream).write_all(&greeting).map_err(lost)?;
        let mut theirs = [0; GREETING];
        // Whoever says less, or nothing, or something else, is no peer.
        wait.read_exact(&mut theirs[..MAGIC.len()]).map_err(|_| PeerError::NotAPeer { address })?;
        if theirs[..MAGIC.len()] != *MAGIC {
            return Err(PeerError::NotAPeer { address });
        }
        wait.read_exact(&mut theirs[MAGIC.len()..]).map_err(lost)?;
        let version = u16::from_be_bytes([theirs[MAGIC.len()], theirs[MAGIC.len() + 1]]);
        if version != PROTOCOL {
            return Err(PeerError::Version { address, ours: PROTOCOL, theirs: version });
        }
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&theirs[MAGIC.len() + 2..]);
        let (client, server) = if end == End::Client { (ours, nonce) } else { (nonce, ours) };
        let greetings = Greetings { version, client, server };
        match end {
            End::Client => prove_client(&stream, &mut wait, &greetings, token, address)?,
            End::Server => prove_server(&stream, &mut wait, &greetings, token, address)?,
        }
        Ok(Self { session: greetings.session(token), stream, address, end, sent: 0, received: 0 })
    }

    /// Sends a message.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), PeerError> {
        let lost = |source| PeerError::Lost { address: self.address, doing: "take a message", source };
        let body = serde_json::to_vec(message).map_err(|error| lost(error.into()))?;
        let length = u32::try_from(body.len()).map_err(|error| lost(io::Error::other(error)))?;
        let tag = self.session.tag(self.end, self.sent, &body);
        self.sent += 1;
        let frame = [&length.to_be_bytes()[..], &tag, &body].concat();
        (&self.stream).write_all(&frame).map_err(lost)
    }

    /// Waits for a message of at most so many bytes.
    pub(super) fn receive<T: DeserializeOwned>(
        &mut self,
        most_bytes: usize,
        doing: &'static str,
        deadline: Instant,
        stop: Option<&Stop>,
    ) -> Result<T, Waited> {
        let address = self.address;
        let lost = |source| Waited::Failed(PeerError::Lost { address, doing, source });
        let mut head = [0; 4 + TAG];
        let mut wait = Wait { stream: &self.stream, deadline, stop };
        match wait.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(Waited::TimeOver),
            other => other.map_err(lost)?,
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let damaged = || Waited::Failed(PeerError::Damaged { address });
        if length > most_bytes {
            return Err(damaged());
        }
        let mut body = vec![0; length];
        // What has begun is to come soon.
        wait.deadline = Instant::now() + HANDSHAKE;
        wait.read_exact(&mut body).map_err(lost)?;
        let from = if self.end == End::Client { End::Server } else { End::Client };
        if !self.session.is_good(from, self.received, &body, &head[4..]) {
            return Err(damaged());
        }
        self.received += 1;
        serde_json::from_slice(&body).map_err(|_| damaged())
    }

    /// Whether the peer has said something, or is gone, which is not to be while a load runs.
    pub(super) fn is_disturbed(&self) -> bool {
        let mut byte = [0];
        if self.stream.set_read_timeout(Some(LOOK)).is_err() {
            return true;
        }
        match self.stream.peek(&mut byte) {
            Ok(_) => true,
            Err(error) => !is_pause(&error),
        }
    }
}

/// The client proves itself first: a server does nothing for strangers, and tells them nothing.
fn prove_client(
    mut stream: &TcpStream,
    wait: &mut Wait<'_>,
    greetings: &Greetings,
    token: &Token,
    address: SocketAddr,
) -> Result<(), PeerError> {
    let lost = |source| PeerError::Lost { address, doing: "prove its token", source };
    stream.write_all(&greetings.proof(token, End::Client)).map_err(lost)?;
    let mut answer = [0; 1];
    wait.read_exact(&mut answer).map_err(lost)?;
    let mut proof = [0; TAG];
    if answer != [1] {
        return Err(PeerError::WrongToken { address });
    }
    wait.read_exact(&mut proof).map_err(lost)?;
    if greetings.proves(token, End::Server, &proof) { Ok(()) } else { Err(PeerError::WrongToken { address }) }
}

fn prove_server(
    mut stream: &TcpStream,
    wait: &mut Wait<'_>,
    greetings: &Greetings,
    token: &Token,
    address: SocketAddr,
) -> Result<(), PeerError> {
    let lost = |source| PeerError::Lost { address, doing: "prove its token", source };
    let mut proof = [0; TAG];
    wait.read_exact(&mut proof).map_err(lost)?;
    if !greetings.proves(token, End::Client, &proof) {
        // It is told, if it still listens.
        let _ = stream.write_all(&[0]);
        return Err(PeerError::WrongToken { address });
    }
    let answer = [&[1][..], &greetings.proof(token, End::Server)].concat();
    stream.write_all(&answer).map_err(lost)
}

/// A wait for bytes, to a deadline or until it is stopped.
struct Wait<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
    stop: Option<&'a Stop>,
}

impl Wait<'_> {
    fn read_exact(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.is_some_and(Stop::is_set) {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left.min(LOOK).max(Duration::from_millis(1))))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => bytes = &mut bytes[n..],
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
