//! `frag`: fragments in and out, and ip.reassembly.
//!
//! Hooks: TC / XDP (see `wire`). No tracepoint tells when the kernel has put a datagram together, so the fragments'
//! places are added up here, without looking into them: complete means that as many bytes as the last fragment
//! announces have been seen, each place once: a copy of a fragment adds nothing, as in the kernel.
//! Yields: exact counts, a histogram, an event a datagram.
//! Cost: one hash entry a fragmented datagram; nothing for other packets.

use nettrace_common::{
    Counter, Loss, Signal,
    probes::frag::{FragKey, FragState, PLACES, Reassembly},
    wire::{Direction, Kind},
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    hist,
    maps::{FRAGS, count, lost},
    packet::Packet,
    parse::Fragment,
    probes::wire::Seen,
};

/// Counts a fragment, and ends its datagram's reassembly when none is missing.
#[inline(always)]
pub fn look<P: Packet>(seen: &Seen<'_, P>, fragment: &Fragment) {
    let v6 = seen.parsed.flow.family == 6;
    if matches!(seen.direction, Direction::Out) {
        count(if v6 { Counter::FragmentOutV6 } else { Counter::FragmentOutV4 });
        return;
    }
    count(if v6 { Counter::FragmentInV6 } else { Counter::FragmentInV4 });
    gather(seen, fragment);
}

/// A datagram of which nothing was seen: kept out of the stack, of which a packet's headers take most.
static NOTHING: FragState =
    FragState { first_ns: 0, bytes: 0, total: 0, fragments: 0, sport: 0, dport: 0, places: [0; PLACES] };

#[inline(always)]
fn gather<P: Packet>(seen: &Seen<'_, P>, fragment: &Fragment) {
    let flow = &seen.parsed.flow;
    let key = FragKey {
        saddr: flow.saddr,
        daddr: flow.daddr,
        id: fragment.id,
        ifindex: seen.place.ifindex,
        protocol: u32::from(flow.protocol),
    };
    let now = now_ns();
    let last = if fragment.more { 0 } else { fragment.offset + fragment.len };
    let place = (fragment.offset / 8 + 1) as u16;
    let Some(state) = FRAGS.get_ptr_mut(&key).or_else(|| begin(&key)) else { return lost(Loss::MapFull) };
    // SAFETY: the value lives at least until the program ends; fragments of one datagram come in on one CPU but for
    // rare exceptions, which leave the datagram incomplete.
    let state = unsafe { &mut *state };
    if state.places.contains(&place) {
        return;
    }
    if state.fragments == 0 {
        state.first_ns = now;
    }
    if let Some(free) = state.places.get_mut(state.fragments as usize) {
        *free = place;
    }
    state.bytes += fragment.len;
    state.fragments += 1;
    if last != 0 {
        state.total = last;
    }
    if flow.sport != 0 {
        state.sport = flow.sport;
        state.dport = flow.dport;
    }
    if state.total != 0 && state.bytes >= state.total {
        complete(seen, fragment.id, state, now);
        let _ = FRAGS.remove(&key);
    }
}

/// Makes room for a datagram of which nothing was seen before.
#[inline(always)]
fn begin(key: &FragKey) -> Option<*mut FragState> {
    FRAGS.insert(key, &NOTHING, 0).ok()?;
    FRAGS.get_ptr_mut(key)
}

#[inline(always)]
fn complete<P: Packet>(seen: &Seen<'_, P>, id: u32, state: &FragState, now: u64) {
    count(Counter::Reassembled);
    let latency_ns = now - state.first_ns;
    hist::record(Signal::IpReassembly, seen.place.scope, latency_ns);
    let Some(mut entry) = reserve::<Reassembly>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<Reassembly>(Kind::Reassembly, seen.direction, &seen.place, now);
        (*record).flow = seen.parsed.flow;
        (*record).flow.sport = state.sport;
        (*record).flow.dport = state.dport;
        (*record).latency_ns = latency_ns;
        (*record).id = id;
        (*record).bytes = state.total;
        (*record).fragments = state.fragments;
        (*record).pad = 0;
    }
    submit(entry);
}
