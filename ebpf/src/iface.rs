//! Which interface scope a packet or socket belongs to; scope 0 means that it is not to be measured.

use nettrace_common::{
    SCOPE_IGNORED,
    config::{IFACE_WAYS, IfaceSlot, iface_slot},
};

use crate::{
    kernel::{Access, cfg_get},
    maps::IFACES,
};

/// Where a packet is.
#[derive(Clone, Copy)]
pub struct Place {
    /// Network namespace, inode number.
    pub netns: u32,
    /// Interface index; 0 for a socket.
    pub ifindex: u32,
    /// Its scope.
    pub scope: u16,
}

impl Place {
    /// Nowhere in particular: what no interface is known for.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self { netns: 0, ifindex: 0, scope: cfg_get!(default_scope) as u16 }
    }

    /// Whether it is not to be measured.
    #[inline(always)]
    pub fn ignored(&self) -> bool {
        self.scope == SCOPE_IGNORED
    }

    /// Of a `struct net_device`.
    #[inline(always)]
    pub fn of_device<A: Access>(dev: *const u8) -> Self {
        if dev.is_null() {
            return Self::unknown();
        }
        let ifindex: u32 = A::get(dev, cfg_get!(offsets.dev_ifindex));
        let net = A::ptr(dev, cfg_get!(offsets.dev_net));
        let netns: u32 = A::get(net, cfg_get!(offsets.net_inum));
        Self { netns, ifindex, scope: scope_of(netns, ifindex) }
    }

    /// Of a `struct sk_buff`: of its device, or else of its socket.
    #[inline(always)]
    pub fn of_packet<A: Access>(skb: *const u8) -> Self {
        let dev = A::ptr(skb, cfg_get!(offsets.skb_dev));
        if !dev.is_null() {
            return Self::of_device::<A>(dev);
        }
        let sk = A::ptr(skb, cfg_get!(offsets.skb_sk));
        if sk.is_null() { Self::unknown() } else { Self::of_sock::<A>(sk) }
    }

    /// Of a `struct sock`: its namespace as a whole.
    #[inline(always)]
    pub fn of_sock<A: Access>(sk: *const u8) -> Self {
        Self::of_net::<A>(A::ptr(sk, cfg_get!(offsets.sk_net)))
    }

    /// Of a `struct net` as a whole.
    #[inline(always)]
    pub fn of_net<A: Access>(net: *const u8) -> Self {
        let netns: u32 = A::get(net, cfg_get!(offsets.net_inum));
        Self { netns, ifindex: 0, scope: scope_of(netns, 0) }
    }
}

#[inline(always)]
fn scope_of(netns: u32, ifindex: u32) -> u16 {
    match slot(netns, ifindex) {
        Some(s) => s.scope as u16,
        None => cfg_get!(default_scope) as u16,
    }
}

/// The table's entry for an interface, if it has one.
#[inline(always)]
pub fn slot(netns: u32, ifindex: u32) -> Option<&'static IfaceSlot> {
    for way in 0..IFACE_WAYS {
        let s = IFACES.get(iface_slot(netns, ifindex, way))?;
        if s.ifindex == ifindex && s.netns == netns && s.scope != 0 {
            return Some(s);
        }
    }
    None
}
