//! Hardware interfaces: link, rings, coalescing.

use super::{Judgement, Risk, Rule, Seen, by_hand, path::ENOUGH, path::ENOUGH_QUEUED, quoted};
use crate::{
    node::{Nic, Rings},
    report::units,
};
use nettrace_common::Signal;

/// Share of a round trip that an interrupt may be held back, below which it does not show.
const HELD_SHARE: f64 = 0.1;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "nic.speed",
        advice: "use 10 GbE NICs",
        looks_at: "Hardware links that run half duplex (consider), and whether packets wait in the queues of the interfaces: \
                   as qdisc.queue.",
        risk: Risk::Medium,
        when_not: "Nothing waits for the link: a faster one saves the microseconds that a packet takes to be sent.",
        source: "https://docs.kernel.org/networking/ethtool-netlink.html",
        needs: &[Signal::TxQdisc.name()],
        judge: speed,
    },
    Rule {
        id: "nic.rings",
        advice: "enlarge the NIC's rings to their maximum",
        looks_at: "Packets that each NIC lost for want of room, since its driver was loaded: without any it is not needed, nor \
                   where all of those that lost some have rings as long as can be.",
        risk: Risk::Medium,
        when_not: "None is lost: longer rings are more delay, and leave the CPU's caches. On many NICs the link goes down for \
                   the change.",
        source: "https://docs.kernel.org/networking/statistics.html",
        needs: &[],
        judge: rings,
    },
    Rule {
        id: "nic.coalescing",
        advice: "switch interrupt coalescing off",
        looks_at: "For how long interrupts may be held back, against the median of 100 round trips or more: less than a tenth \
                   does not show.",
        risk: Risk::Medium,
        when_not: "CPUs are busy: each packet's interrupt takes time from all.",
        source: "https://docs.kernel.org/networking/ethtool-netlink.html",
        needs: &[],
        judge: coalescing,
    },
];

/// Hardware of the host, or why it is not known.
fn nics<'a>(seen: &Seen<'a>) -> Result<&'a [Nic], Box<Judgement>> {
    match seen.node.nics.as_deref() {
        None => {
            let why = "the measurement does not have the node's NICs";
            Err(Box::new(Judgement::cannot_tell(why, "ethtool NIC")))
        }
        Some([]) => Err(Box::new(Judgement::not_needed("no hardware interface is here"))),
        Some(nics) => Ok(nics),
    }
}

/// How a NIC runs, in a few words.
fn link(nic: &Nic) -> String {
    let speed =
        nic.speed_mbit_s.map_or_else(|| "speed not known".to_owned(), |speed| format!("{speed} Mbit/s"));
    let driver = nic.driver.as_deref().unwrap_or("driver not known");
    format!("{driver}, {speed}")
}

fn speed(seen: &Seen<'_>) -> Judgement {
    let nics = match nics(seen) {
        Ok(nics) => nics,
        Err(said) => return *said,
    };
    let wait = |name: &str| {
        let mut rows = seen.snapshot.signals.iter();
        let row = rows.find(|row| row.signal == Signal::TxQdisc.name() && row.scope == name)?;
        (row.hist.count() >= ENOUGH_QUEUED).then(|| row.hist.quantile_ns(0.95))
    };
    let waits: Vec<_> = nics.iter().filter_map(|nic| Some((nic, wait(&nic.name)?))).collect();
    let longest = waits.iter().max_by_key(|(_, ns)| *ns);
    let judgement = if let Some(nic) = nics.iter().find(|nic| nic.duplex.as_deref() == Some("half")) {
        Judgement::consider(format!(
            "{} runs half duplex: it sends and receives by turns, and collides",
            nic.name
        ))
        .brings("both ways at once")
        .change(by_hand(
            "host and switch",
            "let both ends negotiate, or set both to the same",
            "as before",
        ))
    } else {
        match longest {
            None => Judgement::cannot_tell(
                "too few packets were timed at the NICs",
                "nettrace run -d 1m --signals tx.qdisc, under load",
            ),
            Some((_, ns)) if *ns < seen.limits.queue_ns => {
                Judgement::not_needed("packets do not wait for the link")
            }
            Some((nic, _)) => Judgement::cannot_tell(
                format!(
                    "packets wait for {}; whether it is full, or held back by a qdisc, was not measured",
                    nic.name
                ),
                "sar -n DEV 1, or ip -s link: bytes per second against the link's speed",
            ),
        }
    };
    let judgement = match longest {
        Some((nic, ns)) => judgement.seen(
            &format!("time in the queue of {}, p95", nic.name),
            units::duration(*ns),
            Some(units::duration(seen.limits.queue_ns)),
        ),
        None => judgement,
    };
    nics.iter().take(4).fold(judgement, |judgement, nic| judgement.with(&nic.name, link(nic)))
}

/// The count is not of the time that was measured, so that it calls for nothing by itself.
fn rings(seen: &Seen<'_>) -> Judgement {
    let nics = match nics(seen) {
        Ok(nics) => nics,
        Err(said) => return *said,
    };
    let is_longest = |rings: Rings| rings.rx >= rings.rx_max;
    let counted = nics.iter().filter_map(|nic| Some((nic, nic.rx_missed?)));
    // Of one whose ring can be longer first, however much others lost.
    let worst = counted.max_by_key(|(nic, missed)| {
        (*missed > 0, *missed > 0 && !nic.rings.is_some_and(is_longest), *missed)
    });
    let Some((nic, missed)) = worst else {
        return Judgement::cannot_tell("what the NICs lost could not be read", "ip -s -s link");
    };
    let judgement = if missed == 0 {
        Judgement::not_needed("no NIC lost a packet for want of room")
    } else if nic.rings.is_some_and(is_longest) {
        Judgement::not_needed(format!("{} lost packets, and its ring is as long as it can be", nic.name))
    } else {
        let name = quoted(&nic.name);
        let most = nic.rings.map_or_else(
            || format!("to what ethtool -g {name} has as its maximum"),
            |rings| format!("to {} at most", rings.rx_max),
        );
        Judgement::cannot_tell(
            format!("{} lost packets for want of room; whether it still does is not known", nic.name),
            format!(
                "ip -s -s link show dev {name}, twice: where `missed` grows, ethtool -G {name} rx, step by step, {most}"
            ),
        )
    };
    let judgement = judgement.seen(
        &format!("packets that {} lost since its driver was loaded", nic.name),
        units::count(missed),
        Some("1".to_owned()),
    );
    match nic.rings {
        Some(rings) => {
            judgement.with("its ring for receiving", format!("{} of at most {}", rings.rx, rings.rx_max))
        }
        None => judgement,
    }
}

fn coalescing(seen: &Seen<'_>) -> Judgement {
    let nics = match nics(seen) {
        Ok(nics) => nics,
        Err(said) => return *said,
    };
    let held = nics.iter().filter_map(|nic| Some((nic, nic.coalescing?)));
    let Some((nic, coalescing)) = held.max_by_key(|(_, c)| c.rx_us) else {
        return Judgement::not_needed("no driver here says that it holds interrupts back");
    };
    if coalescing.rx_us == 0 {
        return Judgement::not_needed("no interrupt is held back here");
    }
    let row = match seen.enough(Signal::NetRtt, ENOUGH) {
        Ok(row) => row,
        Err(said) => return *said,
    };
    let round_trip = row.hist.quantile_ns(0.5);
    let share = f64::from(coalescing.rx_us) * 1000.0 / round_trip.max(1) as f64;
    let name = quoted(&nic.name);
    let judgement = if share < HELD_SHARE {
        Judgement::not_needed("interrupts are held back for little of a round trip")
    } else {
        Judgement::cannot_tell(
            "what holding interrupts back takes of a packet happens in the NIC, and was not measured",
            format!(
                "ethtool -C {name} rx-usecs 0, measure again, and back with ethtool -C {name} rx-usecs {}",
                coalescing.rx_us
            ),
        )
    };
    judgement
        .seen(
            &format!("held back by {}, of the median round trip", nic.name),
            units::percent(share),
            Some(units::percent(HELD_SHARE)),
        )
        .with("for at most", format!("{} us", coalescing.rx_us))
        .with("changed by the driver itself", if coalescing.adaptive_rx { "yes" } else { "no" }.to_owned())
        .with("round trip, p50", units::duration(round_trip))
}
