//! One packet as TC and XDP programs see it: bytes at an offset, by direct access where they are linear.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_probe_read_kernel_buf, generated::bpf_skb_load_bytes},
    programs::{TcContext, XdpContext},
};
use core::{arch::asm, cell::UnsafeCell, mem::MaybeUninit};

/// Offsets beyond this are not looked at: it bounds what the verifier must consider.
const MAX_OFFSET: u32 = 1023;

/// Zero, which the verifier does not know: unlike the frozen block, user space could write it.
#[unsafe(no_mangle)]
static OPAQUE_ZERO: Opaque = Opaque(UnsafeCell::new(0));

/// Kept where user space could write: a plain static is constant, and so are its copies in the frozen block.
struct Opaque(UnsafeCell<u32>);

// SAFETY: nobody writes it.
unsafe impl Sync for Opaque {}

/// The same number, of which the verifier knows nothing any more. A packet with one tag and one with two have their IP
/// headers at different places; as long as the verifier knows them, it follows every combination of headers to the
/// program's end, some 300,000 instructions. Without them the ways meet again.
#[inline(always)]
pub fn opaque(n: u32) -> u32 {
    // SAFETY: a static is readable, and nobody writes it.
    n ^ unsafe { OPAQUE_ZERO.0.get().read_volatile() }
}

/// The same for an offset into a packet. One that is too far to be looked at stays so.
#[inline(always)]
pub fn opaque_offset(offset: u32) -> u32 {
    // Beyond what `direct` accepts, and still small enough for the verifier to add it to a packet's start.
    const FAR: u32 = 2 * MAX_OFFSET + 1;
    let offset = if offset > FAR { FAR } else { offset };
    opaque(offset) & FAR
}

/// What the parser needs of a packet.
pub trait Packet: EbpfContext {
    /// The packet's first bytes where they lie, without a copy; none when so many are not linear.
    fn head<const N: usize>(&self) -> Option<&[u8; N]>;
    /// Reads a header at an offset; none when the packet ends before.
    fn header<T: Copy>(&self, offset: u32) -> Option<T>;
    /// The same, straight from the linear part where it is there: quicker, and another way for the verifier to follow.
    fn near<T: Copy>(&self, offset: u32) -> Option<T>;
    /// Copies `len` bytes (1 to `N`) from an offset; false when the packet ends before.
    fn copy<const N: usize>(&self, offset: u32, to: *mut [u8; N], len: u32) -> bool;
    /// Interface the program runs at.
    fn ifindex(&self) -> u32;
    /// Interface at which the packet was received, 0 when made here.
    fn ingress_ifindex(&self) -> u32;
    /// Bytes, link header included.
    fn len(&self) -> u32;
    /// Payload bytes of each packet that this one is to be cut into; 0 when it is one already.
    fn segment_len(&self) -> u32;
}

/// The same number in one register. The compiler knows much of an offset, from an earlier header or where it was made of
/// another one, and compares one number and adds a second; the verifier wants the very number checked that is added.
#[inline(always)]
fn pinned(offset: u32) -> u64 {
    let mut offset = u64::from(offset);
    // SAFETY: a register is copied to itself; an empty template would have line information that verifiers refuse.
    unsafe { asm!("{0} = {0}", inout(reg) offset, options(pure, nomem, nostack)) };
    offset
}

/// Reads from the linear part.
#[inline(always)]
fn direct<T: Copy>(data: usize, data_end: usize, offset: u32) -> Option<T> {
    let offset = pinned(offset);
    if offset > u64::from(MAX_OFFSET) {
        return None;
    }
    let at = data + offset as usize;
    if at + size_of::<T>() > data_end {
        return None;
    }
    // SAFETY: in bounds, as just checked, also by the verifier; packet bytes are initialised.
    Some(unsafe { (at as *const T).read_unaligned() })
}

/// The first bytes of the linear part.
#[inline(always)]
fn first<'a, const N: usize>(data: usize, data_end: usize) -> Option<&'a [u8; N]> {
    if data + N > data_end {
        return None;
    }
    // SAFETY: in bounds, as just checked, also by the verifier; packet bytes are initialised, and stay while the program
    // runs.
    Some(unsafe { &*(data as *const [u8; N]) })
}

/// A length of 1 to `N` that the verifier sees to be one; `N` is a power of two. The compiler knows from afar that `len` is
/// in range and would drop the checks that the verifier needs; and before 6.2 that one learns nothing of a minimum from
/// `len != 0`, but does from an addition.
#[inline(always)]
fn bounded<const N: usize>(len: u32) -> u32 {
    const { assert!(N.is_power_of_two()) };
    (core::hint::black_box(len.wrapping_sub(1)) & (N as u32 - 1)) + 1
}

impl Packet for TcContext {
    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        first(self.data(), self.data_end())
    }

    #[inline(always)]
    fn header<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut v = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all bytes of `v` or fails.
        unsafe {
            let r = bpf_skb_load_bytes(
                self.as_ptr().cast(),
                offset,
                v.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            if r == 0 { Some(v.assume_init()) } else { None }
        }
    }

    #[inline(always)]
    fn near<T: Copy>(&self, offset: u32) -> Option<T> {
        direct(self.data(), self.data_end(), offset).or_else(|| self.header(offset))
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, offset: u32, to: *mut [u8; N], len: u32) -> bool {
        if len == 0 || len > N as u32 {
            return false;
        }
        let len = bounded::<N>(len);
        // SAFETY: `len` is at most the destination's length.
        unsafe { bpf_skb_load_bytes(self.as_ptr().cast(), offset, to.cast(), len) == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb.skb).ingress_ifindex }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        Self::len(self)
    }

    #[inline(always)]
    fn segment_len(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb.skb).gso_size }
    }
}

impl Packet for XdpContext {
    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        first(self.data(), self.data_end())
    }

    #[inline(always)]
    fn header<T: Copy>(&self, offset: u32) -> Option<T> {
        direct(self.data(), self.data_end(), offset)
    }

    #[inline(always)]
    fn near<T: Copy>(&self, offset: u32) -> Option<T> {
        self.header(offset)
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, offset: u32, to: *mut [u8; N], len: u32) -> bool {
        if len == 0 || len > N as u32 || offset > MAX_OFFSET {
            return false;
        }
        let len = bounded::<N>(len);
        let at = self.data() + offset as usize;
        if at + len as usize > self.data_end() {
            return false;
        }
        // SAFETY: `len` is at most the destination's length; the source was checked against the packet's end.
        unsafe {
            let to = core::slice::from_raw_parts_mut(to.cast::<u8>(), len as usize);
            bpf_probe_read_kernel_buf(at as *const u8, to).is_ok()
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    #[inline(always)]
    fn segment_len(&self) -> u32 {
        0
    }
}
