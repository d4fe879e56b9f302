//! A server's thread by UDP: answers each datagram to where it came from, or counts it.

use super::{
    super::{
        dns,
        outcome::Served,
        protocol::{MARK_BYTES, mark_of, put_mark},
        socket::{Address, receive_from, send_to},
        spec::{Kind, Load},
    },
    DRAIN, Shared,
    sink::Sink,
};
use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

/// Room for one datagram, bytes.
const READ_BYTES: usize = 1 << 16;

/// Until the server is stopped and nothing comes any more.
pub(super) fn serve(socket: &UdpSocket, shared: &Shared, number: u32) -> (Served, Option<Sink>) {
    let mut served = Served::default();
    let mut sink = shared.load.kind.is_one_way().then(|| Sink::new(&shared.load));
    let mut thinker = shared.thinker(number);
    let mut answers = Answers::of(&shared.load);
    let (mut buffer, mut from) = (vec![0; READ_BYTES], Address::none());
    let mut stopped: Option<Instant> = None;
    loop {
        // What was sent one way is still under way when its sender is done.
        let drain = if sink.is_some() { DRAIN } else { Duration::ZERO };
        if shared.stop.is_set() && stopped.get_or_insert_with(Instant::now).elapsed() >= drain {
            return (served, sink);
        }
        let len = match receive_from(socket, &mut buffer, &mut from) {
            Ok(len) => len,
            Err(_) if shared.stop.is_set() => return (served, sink),
            // Nothing for now.
            Err(_) => continue,
        };
        if shared.only.is_some() && !from.get().is_some_and(|from| shared.serves(from)) {
            served.strangers += 1;
            continue;
        }
        served.received_bytes += len as u64;
        if let Some(sink) = &mut sink {
            served.requests += 1;
            sink.count(1, shared.clock.now_ns(), &shared.origin);
            thinker.think();
            continue;
        }
        thinker.think();
        match answers.to(&buffer[..len]).map(|answer| send_to(socket, answer, &from)) {
            Some(Ok(bytes)) => {
                served.requests += 1;
                served.sent_bytes += bytes as u64;
            }
            Some(Err(_)) | None => served.failed += 1,
        }
    }
}

/// What is answered.
enum Answers {
    /// Payload of a length, which begins as the request does.
    Fixed { response: Vec<u8>, marked: usize },
    /// DNS.
    Dns(Vec<u8>),
}

impl Answers {
    fn of(load: &Load) -> Self {
        let bytes = load.response_bytes as usize;
        match load.kind {
            Kind::Dns(_) => Self::Dns(Vec::with_capacity(dns::LONGEST_FRAME)),
            _ => Self::Fixed { response: vec![b'r'; bytes], marked: MARK_BYTES.min(bytes) },
        }
    }

    fn to(&mut self, request: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Fixed { response, marked } => {
                let marked = (*marked).min(request.len());
                put_mark(&mut response[..marked], mark_of(request));
                Some(response)
            }
            Self::Dns(response) => {
                response.clear();
                dns::answer(request, response)?;
                Some(response)
            }
        }
    }
}
