//! Dumps over netlink, of the namespace that the calling thread is in.

use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
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
}

/// Datagrams of a dump are at most this long.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Asks for everything of a kind, and yields the answers in the kernel's order.
pub(crate) fn dump<M>(protocol: isize, question: M) -> Result<Vec<M>, DumpError>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut answers = Vec::new();
    dump_each(protocol, question, |answer| {
        answers.push(answer);
        ControlFlow::Continue(())
    })?;
    Ok(answers)
}

/// Asks for everything of a kind, and looks at each answer until `each` has seen enough: no more than a datagram of them
/// is held.
pub(crate) fn dump_each<M>(
    protocol: isize,
    question: M,
    mut each: impl FnMut(M) -> ControlFlow<()>,
) -> Result<(), DumpError>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let socket = Socket::new(protocol).map_err(DumpError::Socket)?;
    if protocol == NETLINK_ROUTE {
        // Else the kernel takes no heed of what the question's header asks for.
        socket.set_netlink_get_strict_chk(true).map_err(DumpError::Socket)?;
    }
    socket.connect(&SocketAddr::new(0, 0)).map_err(DumpError::Socket)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut question = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(DumpError::Socket)?;
    let mut answers = Vec::new();
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0).map_err(DumpError::Socket)?;
        let last = take(&datagram, &mut answers)?;
        if answers.drain(..).try_for_each(&mut each).is_break() || last {
            return Ok(());
        }
    }
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
}
