//! What load generators say, as results have it.

use nettrace_bench::{
    cpu::Pinned,
    load::{Kind, Load, Outcome as Seen, Pace, Received, Served},
    result::{Cpus, Latencies, Outcome, Schedule, Unit},
};

/// Of one load: what its client saw, and its server, where that said it.
pub(super) fn outcome(load: &Load, client: &Seen, server: Option<&Served>) -> Outcome {
    let received = server.and_then(|served| served.received.as_ref());
    // One way, what arrived counts, and not what the kernel took.
    let (count, elapsed_ns) = match received {
        Some(Received { units, elapsed_ns, .. }) if load.kind.is_one_way() => (*units, *elapsed_ns),
        _ => (client.answered, client.elapsed_ns),
    };
    Outcome {
        schedule: match load.pace {
            Pace::Closed => Schedule::Closed,
            Pace::Open { rate_per_second, .. } => Schedule::Open { rate_per_second },
        },
        unit: match load.kind {
            Kind::TcpStream => Unit::Bytes,
            Kind::UdpFlood => Unit::Datagrams,
            _ => Unit::Requests,
        },
        count,
        elapsed_ns,
        errors: client.errors.by_name(),
        latency: (!load.kind.is_one_way()).then(|| Latencies::from(&client.latency)),
        cpus: Cpus {
            client: cpus(&client.pinned),
            server: server.map_or_else(Vec::new, |s| cpus(&s.pinned)),
        },
    }
}

fn cpus(pinned: &Pinned) -> Vec<u32> {
    pinned.cpus.iter().filter_map(|cpu| u32::try_from(*cpu).ok()).collect()
}
