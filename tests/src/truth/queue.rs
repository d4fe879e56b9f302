//! A netfilter queue (NFQUEUE): packets are held where a rule says so, until the test lets them go.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink_queue.h; numbers of attributes are in network byte order.

use anyhow::{Context, Result, bail, ensure};
use nettrace::lab::Netns;
use std::{
    io,
    net::UdpSocket,
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

/// `NFNL_SUBSYS_QUEUE << 8`, and what is added: `NFQNL_MSG_PACKET`, `NFQNL_MSG_VERDICT`, `NFQNL_MSG_CONFIG`.
const PACKET: u16 = 3 << 8;
const VERDICT: u16 = PACKET | 1;
const CONFIG: u16 = PACKET | 2;
const NLMSG_ERROR: u16 = 2;
/// `NFQA_PACKET_HDR`, `NFQA_VERDICT_HDR`, `NFQA_CFG_CMD`, `NFQA_CFG_PARAMS`
const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// A queue that this process decides for.
#[derive(Debug)]
pub struct Queue {
    /// Any socket that sends and receives: netlink's is not one of the standard library's.
    socket: UdpSocket,
    number: u16,
}

/// A packet that waits for its verdict.
#[derive(Debug)]
#[must_use]
pub struct HeldPacket([u8; 4]);

impl Queue {
    /// Begins to decide for a queue of a namespace.
    ///
    /// # Errors
    /// When the kernel has no such queues, or somebody else decides.
    pub fn open(netns: &Netns, number: u16) -> Result<Self> {
        let socket = netns.run(|| {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            // SAFETY: a plain system call.
            let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is new, and nobody else has it.
            Ok(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
        })??;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let queue = Self { socket, number };
        // NFQNL_CFG_CMD_BIND, and its family, which is no longer looked at.
        queue.set(CFG_CMD, &[1, 0, 0, 0])?;
        // No byte of the packet itself: NFQNL_COPY_META.
        queue.set(CFG_PARAMS, &[0, 0, 0, 0, 1])?;
        Ok(queue)
    }

    /// Waits for the next packet. It stays where it is.
    ///
    /// # Errors
    /// When none comes.
    pub fn take(&self) -> Result<HeldPacket> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).context("no packet came to the queue")?;
        let message = &bytes[..length];
        ensure!(kind(message) == Some(PACKET), "the queue says {message:?}");
        let mut rest = &message[HEADERS..];
        while let [l0, l1, k0, k1, ..] = *rest {
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            let value = rest.get(4..length).context("an attribute that is cut off")?;
            if u16::from_ne_bytes([k0, k1]) == PACKET_HDR {
                return Ok(HeldPacket(value.get(..4).context("no number")?.try_into()?));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        bail!("a packet without a number: {message:?}")
    }

    /// Lets a packet go on. When this returns, the kernel has taken it as far as it goes on its way through the node.
    ///
    /// # Errors
    /// When the kernel refuses.
    #[expect(clippy::needless_pass_by_value, reason = "a packet has one verdict")]
    pub fn release(&self, packet: HeldPacket) -> Result<()> {
        let HeldPacket([a, b, c, d]) = packet;
        // NF_ACCEPT
        self.send(VERDICT, 0, VERDICT_HDR, &[0, 0, 0, 1, a, b, c, d])
    }

    fn set(&self, attribute: u16, value: &[u8]) -> Result<()> {
        self.send(CONFIG, libc::NLM_F_ACK as u16, attribute, value)?;
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes)?;
        let message = &bytes[..length];
        ensure!(kind(message) == Some(NLMSG_ERROR), "the queue says {message:?}");
        let error = i32::from_ne_bytes(message[16..20].try_into()?);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(-error)).context("the kernel has no netfilter queue");
        }
        Ok(())
    }

    fn send(&self, kind: u16, flags: u16, attribute: u16, value: &[u8]) -> Result<()> {
        let attribute_length = 4 + value.len();
        let length = u32::try_from(HEADERS + attribute_length.next_multiple_of(4))?;
        let mut message = Vec::new();
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
        // Sequence number and port: any.
        message.extend([0; 8]);
        // Any family, version 0.
        message.extend([0; 2]);
        message.extend(self.number.to_be_bytes());
        message.extend(u16::try_from(attribute_length)?.to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(value);
        message.resize(length as usize, 0);
        self.socket.send(&message).context("the kernel refused a message to its queue")?;
        Ok(())
    }
}

/// A whole message's kind.
fn kind(message: &[u8]) -> Option<u16> {
    let kind = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]);
    (message.len() >= HEADERS).then_some(kind)
}
