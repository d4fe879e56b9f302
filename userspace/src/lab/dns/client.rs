//! A DNS client that hides nothing: one call is one query, and says how often it was sent and what came back.
//!
//! It runs in the network namespace of the calling thread: [`Netns::run`](crate::lab::Netns::run) puts it in a pod.

use super::message::{self, Message, Question};
use super::server::{Transport, read_tcp, write_tcp};
use crate::lab::LabError;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A client of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whom it asks.
    pub server: SocketAddr,
    /// Copies of a query at the most, the first counted; all have the same id and port.
    pub copies: u32,
    /// How long it waits for an answer to each copy but the last.
    pub retry_after: Duration,
    /// How long it waits for an answer to the last copy, and on each step over TCP.
    pub timeout: Duration,
}

/// One query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What is asked.
    pub question: Question,
    /// Its id; none for the next of a counter.
    pub id: Option<u16>,
    /// The client's port; 0 for any.
    pub port: u16,
    /// Bytes that it offers for a UDP answer in an OPT record; none for no such record.
    pub edns: Option<u16>,
}

/// What became of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The query.
    pub query: Query,
    /// The id that it had.
    pub id: u16,
    /// The client's address and port.
    pub client: SocketAddr,
    /// Who was asked.
    pub server: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// Copies of the query that were sent.
    pub copies: u32,
    /// Response code; none without an answer.
    pub rcode: Option<u8>,
    /// Records in the answer.
    pub answers: u16,
    /// Whether the answer had the TC bit.
    pub truncated: bool,
    /// From before the first copy was sent until the answer was read, ns, on the monotonic clock: an upper bound of
    /// what an observer between the two sees. None without an answer.
    pub latency_ns: Option<u64>,
}

impl Query {
    /// A query with an id from a counter, from any port, without EDNS.
    pub fn new(name: &str, qtype: u16) -> Self {
        Self { question: Question { name: name.to_owned(), qtype }, id: None, port: 0, edns: None }
    }
}

impl Client {
    /// One that sends each query once and waits 2 s.
    pub fn new(server: SocketAddr) -> Self {
        let timeout = Duration::from_secs(2);
        Self { server, copies: 1, retry_after: timeout, timeout }
    }

    /// Asks over UDP, and over TCP if the answer is truncated: one transaction or two.
    ///
    /// # Errors
    /// [`LabError::Socket`] when a socket call fails, [`LabError::Dns`] for a name that is none.
    pub fn resolve(&self, query: &Query) -> Result<Vec<Outcome>, LabError> {
        let first = self.ask(query)?;
        let again = if first.truncated { self.pipeline(std::slice::from_ref(query))? } else { Vec::new() };
        Ok(std::iter::once(first).chain(again).collect())
    }

    /// Asks over UDP.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub fn ask(&self, query: &Query) -> Result<Outcome, LabError> {
        let failed = |action| LabError::socket::<io::Error>(action, self.server);
        let any: IpAddr =
            if self.server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = SocketAddr::new(any, query.port);
        let socket = UdpSocket::bind(local).map_err(LabError::socket("bind", local))?;
        socket.connect(self.server).map_err(failed("connect to"))?;
        let client = socket.local_addr().map_err(failed("connect to"))?;
        let mut outcome = self.unanswered(query, client, Transport::Udp);
        let bytes = message::encode_query(outcome.id, &query.question, query.edns)?;
        let start = Instant::now();
        while outcome.copies < self.copies.max(1) && outcome.rcode.is_none() {
            socket.send(&bytes).map_err(failed("send to"))?;
            outcome.copies += 1;
            let wait = if outcome.copies < self.copies { self.retry_after } else { self.timeout };
            if let Some(answer) = receive(&socket, &outcome, wait).map_err(failed("receive from"))? {
                outcome.answer(&answer, start);
            }
        }
        Ok(outcome)
    }

    /// Asks over one TCP connection, all queries before the first answer.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub fn pipeline(&self, queries: &[Query]) -> Result<Vec<Outcome>, LabError> {
        let failed = |action| LabError::socket::<io::Error>(action, self.server);
        let mut stream =
            TcpStream::connect_timeout(&self.server, self.timeout).map_err(failed("connect to"))?;
        stream.set_nodelay(true).map_err(failed("set up"))?;
        stream.set_read_timeout(Some(self.timeout)).map_err(failed("set up"))?;
        let client = stream.local_addr().map_err(failed("connect to"))?;
        let mut outcomes = Vec::with_capacity(queries.len());
        let mut waiting = HashMap::new();
        for query in queries {
            let mut outcome = self.unanswered(query, client, Transport::Tcp);
            let bytes = message::encode_query(outcome.id, &query.question, query.edns)?;
            waiting.insert(outcome.id, (outcomes.len(), Instant::now()));
            write_tcp(&mut stream, &bytes).map_err(failed("send to"))?;
            outcome.copies = 1;
            outcomes.push(outcome);
        }
        while !waiting.is_empty() {
            match read_tcp(&mut stream) {
                Ok(bytes) => {
                    let answer = message::decode(&bytes)?;
                    if let Some((at, start)) = waiting.remove(&answer.id) {
                        outcomes[at].answer(&answer, start);
                    }
                }
                // What has no answer yet has none.
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(failed("receive from")(error)),
            }
        }
        Ok(outcomes)
    }

    fn unanswered(&self, query: &Query, client: SocketAddr, transport: Transport) -> Outcome {
        static NEXT_ID: AtomicU16 = AtomicU16::new(1);
        Outcome {
            query: query.clone(),
            id: query.id.unwrap_or_else(|| NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            client,
            server: self.server,
            transport,
            copies: 0,
            rcode: None,
            answers: 0,
            truncated: false,
            latency_ns: None,
        }
    }
}

impl Outcome {
    fn answer(&mut self, answer: &Message, start: Instant) {
        self.rcode = Some(answer.rcode);
        self.answers = answer.answers;
        self.truncated = answer.truncated;
        self.latency_ns = Some(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// The answer to this query, if it comes in time; other messages are passed over.
fn receive(socket: &UdpSocket, outcome: &Outcome, wait: Duration) -> io::Result<Option<Message>> {
    let deadline = Instant::now() + wait;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(bytes) => {
                let is_answer = |message: &Message| {
                    message.response && message.id == outcome.id && message.question == outcome.query.question
                };
                if let Some(answer) = message::decode(&buffer[..bytes]).ok().filter(is_answer) {
                    return Ok(Some(answer));
                }
            }
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
