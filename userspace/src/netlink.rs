//! Dumps over netlink, of the namespace that the calling thread is in.

use crate::deadline::{Deadline, Late, PATIENCE};
use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
        NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::{io, ops::ControlFlow};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpError {
    /// The socket.
    #[error("netlink: {0}")]
    Socket(io::Error),
    /// The kernel said no.
    #[error("the kernel refused to answer by netlink: {0}")]
    Refused(io::Error),
    /// The answer.
    #[error("netlink: {0}")]
    Decode(#[from] DecodeError),
    /// It did not come, or not to its end.
    #[error("netlink: {0}")]
    Late(#[from] Late),
    /// It is whole, and was made of what is no more beside what is new.
    #[error("netlink: what is listed changed while it was read, {TRIES} times")]
    Changed,
}

/// Datagrams of a dump are at most this long.
const DATAGRAM_BYTES: usize = 64 << 10;
/// How often what changes while it is read is read.
const TRIES: u32 = 3;
/// `struct nlmsghdr`
const HEADER_BYTES: usize = 16;

/// Asks for everything of a kind, and yields the answers in the kernel's order. What changes each time that it is read is
/// taken as it is.
pub(crate) fn dump<M>(protocol: isize, question: M) -> Result<Vec<M>, DumpError>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let deadline = Deadline::after(PATIENCE);
    let question = request(question);
    let (answers, error) = settled(Vec::new, |answers| {
        exchange(protocol, &question, deadline, |answer| {
            answers.push(answer);
            ControlFlow::Continue(())
        })
    });
    match error {
        Some(DumpError::Changed) => {
            tracing::debug!("netlink: what is listed changed while it was read");
            Ok(answers)
        }
        Some(error) => Err(error),
        None => Ok(answers),
    }
}

/// Asks for everything of a kind, and looks at each answer until `each` has seen enough: no more than a datagram of them
/// is held.
///
/// # Errors
/// Also, with [`DumpError::Changed`], when `each` has seen all, and what is listed changed meanwhile: see [`settled`].
pub(crate) fn dump_each<M>(
    protocol: isize,
    question: M,
    deadline: Deadline,
    each: impl FnMut(M) -> ControlFlow<()>,
) -> Result<(), DumpError>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    exchange(protocol, &request(question), deadline, each)
}

/// What `read` makes of dumps in books that begin empty, and why these do not have all. What changes while it is read is
/// read anew, with new books, up to [`TRIES`] times.
pub(crate) fn settled<B>(
    new: impl Fn() -> B,
    mut read: impl FnMut(&mut B) -> Result<(), DumpError>,
) -> (B, Option<DumpError>) {
    let mut others = 1..TRIES;
    loop {
        let mut books = new();
        let error = read(&mut books).err();
        if !matches!(error, Some(DumpError::Changed)) || others.next().is_none() {
            return (books, error);
        }
    }
}

/// The bytes of a question for everything of a kind.
fn request<M: NetlinkSerializable>(question: M) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut question = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    bytes
}

fn exchange<M: NetlinkDeserializable>(
    protocol: isize,
    question: &[u8],
    deadline: Deadline,
    mut each: impl FnMut(M) -> ControlFlow<()>,
) -> Result<(), DumpError> {
    let socket = Socket::new(protocol).map_err(DumpError::Socket)?;
    if protocol == NETLINK_ROUTE {
        // Else the kernel takes no heed of what the question's header asks for.
        socket.set_netlink_get_strict_chk(true).map_err(DumpError::Socket)?;
    }
    socket.connect(&SocketAddr::new(0, 0)).map_err(DumpError::Socket)?;
    socket.send(question, 0).map_err(DumpError::Socket)?;
    let mut answers = Vec::new();
    let mut changed = false;
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    loop {
        let timeout = Some(deadline.left()?);
        set_socket_timeout(&socket, Timeout::Recv, timeout)
            .map_err(|errno| DumpError::Socket(errno.into()))?;
        datagram.clear();
        match socket.recv(&mut datagram, 0) {
            Ok(_) => {}
            // Its time is over, or nearly.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(DumpError::Socket(error)),
        }
        let last = take(&datagram, &mut answers)?;
        changed |= tells_of_change(&datagram);
        if answers.drain(..).try_for_each(&mut each).is_break() {
            return Ok(());
        }
        if last {
            return if changed { Err(DumpError::Changed) } else { Ok(()) };
        }
    }
}

/// Whether a header in a datagram says that what is listed has changed since the answer began.
fn tells_of_change(mut datagram: &[u8]) -> bool {
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        if u16::from_ne_bytes([header[6], header[7]]) & NLM_F_DUMP_INTR != 0 {
            return true;
        }
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        datagram = datagram.get(length.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// Takes the answers of one datagram; whether it was the last.
pub(crate) fn take<M: NetlinkDeserializable>(
    mut datagram: &[u8],
    answers: &mut Vec<M>,
) -> Result<bool, DumpError> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<M>::deserialize(datagram)?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(DumpError::Refused(error.to_io()));
            }
            // An error that ends a dump is in its last message.
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(DumpError::Refused(io::Error::from_raw_os_error(done.code.saturating_neg())));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
        let step = (message.header.length as usize).next_multiple_of(4);
        datagram = datagram.get(step..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct nfgenmsg`, before the attributes of each message of nfnetlink: family, version, resource.
pub(crate) const NFGENMSG_BYTES: usize = 4;

/// That head of a message, and its attributes.
pub(crate) fn nfgenmsg(payload: &[u8]) -> Result<(&[u8; NFGENMSG_BYTES], &[u8]), DecodeError> {
    let parts = payload.split_first_chunk();
    parts.ok_or_else(|| DecodeError::from(format!("an answer of {} bytes", payload.len())))
}

/// A message as the kernel sends it, with a body and attributes behind that.
#[cfg(test)]
pub(crate) fn message(kind: u16, body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let payload = [body.to_vec(), attributes_of(attributes)].concat();
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// Attributes one after the other; their values must fill whole words.
#[cfg(test)]
pub(crate) fn attributes_of(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use std::time::Duration;

    #[test]
    fn a_dump_that_ends_with_an_error_is_none() {
        const DONE: u16 = 3;
        let end = |code: i32| {
            take::<RouteNetlinkMessage>(&message(DONE, &code.to_ne_bytes(), &[]), &mut Vec::new())
        };
        assert!(end(0).unwrap());
        let Err(DumpError::Refused(error)) = end(-2) else { panic!("an empty success") };
        assert_eq!(error.raw_os_error(), Some(2));
    }

    #[test]
    fn what_changes_is_read_anew_and_then_taken_with_an_error() {
        let (calm, mut interrupted) = (message(24, &[0; 12], &[]), message(24, &[0; 12], &[]));
        interrupted[6] |= NLM_F_DUMP_INTR as u8;
        assert!(!tells_of_change(&[calm.clone(), calm.clone()].concat()));
        let both = [calm, interrupted].concat();
        assert!(tells_of_change(&both));
        (0..both.len()).for_each(|len| _ = tells_of_change(&both[..len]));
        assert!(!tells_of_change(&[0; 40]), "a header without a length");
        let tried = |changes: u32| {
            let mut tries = 0;
            let (books, error) = settled(Vec::new, |books| {
                tries += 1;
                books.push(tries);
                if tries <= changes { Err(DumpError::Changed) } else { Ok(()) }
            });
            (books, error.map(|error| error.to_string()))
        };
        assert_eq!((tried(0), tried(2)), ((vec![1], None), (vec![3], None)));
        let (books, error) = tried(9);
        assert_eq!(books, [TRIES], "books begin empty each time");
        assert_eq!(error.as_deref(), Some("netlink: what is listed changed while it was read, 3 times"));
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for() {
        let question = || RouteNetlinkMessage::GetLink(rtnetlink::packet_route::link::LinkMessage::default());
        let ask = |deadline| {
            dump_each(NETLINK_ROUTE, question(), deadline, |_: RouteNetlinkMessage| ControlFlow::Continue(()))
        };
        assert!(matches!(ask(Deadline::after(Duration::ZERO)), Err(DumpError::Late(_))));
        ask(Deadline::after(PATIENCE)).unwrap();
        // A socket that the kernel has no answer for: this is no question.
        let begun = std::time::Instant::now();
        let nothing = exchange(
            NETLINK_ROUTE,
            &[0; 16],
            Deadline::after(Duration::from_millis(50)),
            |_: RouteNetlinkMessage| ControlFlow::Continue(()),
        );
        assert!(matches!(nothing, Err(DumpError::Late(_))), "{nothing:?}");
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
