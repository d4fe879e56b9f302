//! nettrace's kernel programs.
//!
//! Each program in `probes/` measures one thing and never changes a packet or a verdict. Latencies of packets go into
//! per-CPU histograms ([`hist`]); what needs identity goes through the ring buffer ([`emit`]). Member offsets and
//! switches come from a frozen block ([`kernel`]), so the verifier prunes what a kernel lacks.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]
#![cfg_attr(
    not(test),
    expect(unreachable_pub, reason = "a binary has no outside; `pub` marks what a module offers")
)]
#![expect(clippy::needless_pass_by_value, reason = "a program's signature is given: it owns its context")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value is copied onto the small stack again"
)]

mod budget;
mod emit;
mod flight;
mod hist;
mod iface;
mod kernel;
mod klog;
mod maps;
mod packet;
mod parse;
mod probes;
mod span;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects an object in which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[unsafe(no_mangle)]
static WIRE_VERSION: u32 = nettrace_common::WIRE_VERSION;
