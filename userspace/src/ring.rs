//! The user side of the ring buffer: whatever is ready, copied out in one piece.
//!
//! The kernel maps the ring's pages twice in a row, so that the bytes between consumer and producer are contiguous
//! wherever they start. One look copies them all at once and frees the room at once; records are then decoded in
//! place. Nobody waits for a wake-up: producers do not send any, see `ebpf/src/emit.rs`.
//!
//! Source: Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c.

use bytes::BytesMut;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    ffi::c_void,
    os::fd::BorrowedFd,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Bytes before each record: length with two flag bits, and a word that user space ignores.
pub const RECORD_HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
/// The producer gave the record up.
pub const DISCARDED: u32 = 1 << 30;
/// At most so much is copied at a time, which bounds memory.
pub const MAX_BATCH: usize = 4 << 20;

/// The ring cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot map the ring buffer ({bytes} bytes): {error}")]
pub struct RingError {
    bytes: usize,
    error: rustix::io::Errno,
}

struct Mapping {
    at: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, prot: ProtFlags, offset: u64) -> Result<Self, RingError> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let at = unsafe { mmap(null_mut(), len, prot, MapFlags::SHARED, fd, offset) };
        match at.map(NonNull::new) {
            Ok(Some(at)) => Ok(Self { at, len }),
            Ok(None) => Err(RingError { bytes: len, error: rustix::io::Errno::FAULT }),
            Err(error) => Err(RingError { bytes: len, error }),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nobody uses it any more.
        let _ = unsafe { munmap(self.at.as_ptr(), self.len) };
    }
}

/// Reads one ring.
pub struct RingReader {
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    mask: usize,
    position: u64,
}

// SAFETY: the mappings are owned, and one reader at a time uses them through `&mut self`.
unsafe impl Send for RingReader {}

impl RingReader {
    /// Maps the ring of a map's descriptor; `bytes` is the size it was made with.
    ///
    /// # Errors
    /// When the kernel refuses the mapping.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self, RingError> {
        let page = rustix::param::page_size();
        let consumer = Mapping::new(fd, page, ProtFlags::READ | ProtFlags::WRITE, 0)?;
        let producer = Mapping::new(fd, page + 2 * bytes, ProtFlags::READ, page as u64)?;
        let mut reader = Self { consumer, producer, page, mask: bytes - 1, position: 0 };
        reader.position = reader.consumer_position().load(Ordering::Acquire);
        Ok(reader)
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the page starts with the consumer's position, aligned, and is mapped as long as `self` lives.
        unsafe { self.consumer.at.cast::<AtomicU64>().as_ref() }
    }

    fn producer_position(&self) -> u64 {
        // SAFETY: the page starts with the producer's position, aligned, and is mapped as long as `self` lives.
        unsafe { self.producer.at.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    fn data(&self, position: u64) -> NonNull<u8> {
        let offset = self.page + (position as usize & self.mask);
        // SAFETY: within the double mapping, which is a page and twice the ring long.
        unsafe { self.producer.at.cast::<u8>().add(offset) }
    }

    /// Size of the ring, bytes.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.mask + 1
    }

    /// Appends all finished records to `out`, as they stand in the ring (see [`RECORD_HEADER`]), and frees their
    /// room. Returns how many bytes.
    pub fn drain(&mut self, out: &mut BytesMut) -> usize {
        let end = self.producer_position();
        let mut upto = self.position;
        while upto < end && (upto - self.position) < MAX_BATCH as u64 {
            // SAFETY: a record header lies at every position below the producer's, 8-byte aligned.
            let len = unsafe { self.data(upto).cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if len & BUSY != 0 {
                break;
            }
            upto += step(len) as u64;
        }
        let bytes = (upto - self.position) as usize;
        if bytes > 0 {
            // SAFETY: `bytes` of finished records lie here, contiguous in the double mapping; the kernel does not
            // write them before the consumer's position has passed.
            out.extend_from_slice(unsafe {
                std::slice::from_raw_parts(self.data(self.position).as_ptr(), bytes)
            });
            self.position = upto;
            self.consumer_position().store(upto, Ordering::Release);
        }
        bytes
    }
}

/// Bytes that a record with this length word takes in the ring, its header included.
#[must_use]
pub const fn step(len: u32) -> usize {
    ((len & !(BUSY | DISCARDED)) as usize + RECORD_HEADER).next_multiple_of(8)
}
