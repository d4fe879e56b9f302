//! Dumps by netlink, in the namespace that the calling thread is in.

use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::io;

/// Datagrams of a dump are at most this long.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpError {
    /// The socket.
    #[error("netlink: {0}")]
    Socket(io::Error),
    /// The kernel said no.
    #[error("the kernel refused to tell: {0}")]
    Refused(io::Error),
    /// The answer.
    #[error("netlink: {0}")]
    Decode(#[from] DecodeError),
}

/// Asks for all there is of something, and has each answer taken.
///
/// # Errors
/// When the kernel refuses, or is not understood.
pub(crate) fn dump<M>(protocol: isize, question: M, mut take: impl FnMut(M)) -> Result<(), DumpError>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let socket = Socket::new(protocol).map_err(DumpError::Socket)?;
    if protocol == NETLINK_ROUTE {
        // Without it the kernel dumps every route where some were asked for; not known before 4.20.
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
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0).map_err(DumpError::Socket)?;
        if answers(&datagram, &mut take)? {
            return Ok(());
        }
    }
}

/// Has the answers of one datagram taken; whether it was the last.
///
/// # Errors
/// When the kernel refused, or an answer is cut off or not understood.
pub(crate) fn answers<M: NetlinkDeserializable>(
    mut datagram: &[u8],
    take: &mut impl FnMut(M),
) -> Result<bool, DumpError> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<M>::deserialize(datagram)?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => take(answer),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(DumpError::Refused(error.to_io()));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
        let step = (message.header.length as usize).next_multiple_of(4);
        datagram = datagram.get(step..).unwrap_or_default();
    }
    Ok(false)
}
