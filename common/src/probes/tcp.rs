//! `tcp`: the life of connections, retransmissions and resets.

use crate::wire::{Flow, Header, Record};

/// What happened to a connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpEventKind {
    /// A local client's SYN was answered: `duration_ns` is `tcp.connect`.
    Connected = 1,
    /// A local client's connection failed: `errno` says how (0: given up by the application).
    ConnectFailed = 2,
    /// A local server's handshake completed: `duration_ns` is `tcp.accept`, 0 when the kernel did not time it.
    Accepted = 3,
    /// An established connection ended.
    Closed = 4,
    /// Segments were sent again: `segments`.
    Retransmit = 5,
    /// RST sent.
    ResetSent = 6,
    /// RST received.
    ResetReceived = 7,
}

/// Why segments are sent again.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// To probe a tail that may be lost, or for a reason that is not known.
    Probe = 0,
    /// No acknowledgement came in time.
    Timeout = 1,
    /// Acknowledgements of later data told of the loss.
    Fast = 2,
}

impl Again {
    /// By the state of congestion control while they are sent: `TCP_CA_Recovery` and `TCP_CA_Loss` of `enum tcp_ca_state`.
    #[inline(always)]
    #[must_use]
    pub const fn of_state(ca_state: u8) -> Self {
        match ca_state {
            3 => Self::Fast,
            4 => Self::Timeout,
            _ => Self::Probe,
        }
    }
}

/// One event of a TCP connection. The flow is local -> remote.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpEvent {
    /// Record header.
    pub header: Header,
    /// Local end (source) and remote end (destination).
    pub flow: Flow,
    /// Time of the handshake, or of the whole connection for `Closed`, ns; 0 when not known.
    pub duration_ns: u64,
    /// Smoothed round trip, us; 0 when there is none yet.
    pub srtt_us: u32,
    /// `sk_err` for `ConnectFailed`, else 0.
    pub errno: u32,
    /// A [`TcpEventKind`].
    pub event: u8,
    /// TCP state before (TCP_* of net/tcp_states.h).
    pub old_state: u8,
    /// TCP state after.
    pub new_state: u8,
    /// Why segments were sent again, see [`Again`]; 0 for other events.
    pub again: u8,
    /// Segments sent again, for `Retransmit`: what one skb holds may be several; else 0.
    pub segments: u32,
    /// For `Closed`: how long the connection had data to send or to be acknowledged, us; `u32::MAX` for longer. It is
    /// known to a jiffy, as are the next two, which are parts of it.
    pub busy_us: u32,
    /// For `Closed`: how long the receiver's window kept it from sending, us.
    pub rwnd_limited_us: u32,
    /// For `Closed`: how long its send buffer did, us.
    pub sndbuf_limited_us: u32,
    /// Zero.
    pub pad: u32,
}

/// Indices into `tcp_sock.chrono_stat`: `enum tcp_chrono` of linux/tcp.h, less 1.
pub mod chrono {
    /// `TCP_CHRONO_BUSY`: data is there, and none of the others.
    pub const BUSY: usize = 0;
    /// `TCP_CHRONO_RWND_LIMITED`
    pub const RWND_LIMITED: usize = 1;
    /// `TCP_CHRONO_SNDBUF_LIMITED`
    pub const SNDBUF_LIMITED: usize = 2;
}

const _: () = assert!(size_of::<TcpEvent>() == 104);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for TcpEvent {}

impl TcpEventKind {
    /// The kind of a number from the wire.
    #[must_use]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Connected,
            2 => Self::ConnectFailed,
            3 => Self::Accepted,
            4 => Self::Closed,
            5 => Self::Retransmit,
            6 => Self::ResetSent,
            7 => Self::ResetReceived,
            _ => return None,
        })
    }
}
