//! DNS: the books, response codes, resolvers, questions, and the slowest transactions.

use super::{super::units, Cell, Kind, Section, Table, clean, nothing};
use crate::snapshot::{Count, Dns, DnsServer, DnsTransaction, Snapshot};

/// The section on DNS.
pub(super) fn section(snapshot: &Snapshot, top: usize) -> Section {
    let dns = &snapshot.dns;
    let mut section = Section::new("dns", "DNS");
    if dns.transactions == 0 {
        section.line(nothing(snapshot, "No DNS seen", &["dns"]));
        return section;
    }
    section.line(books(dns));
    section.line(format!(
        "{} over TCP, {} over IPv6, {} with EDNS; {} sent again, {}.",
        units::count(dns.tcp),
        units::count(dns.ipv6),
        units::count(dns.edns),
        units::plural(dns.retries, "query was", "queries were"),
        units::plural(dns.truncated, "truncated answer", "truncated answers"),
    ));
    section.table(rcodes(dns, top));
    section.table(servers(&dns.servers, top));
    section.table(names(dns, top));
    section.table(slowest(&dns.slowest, top));
    section
}

fn books(dns: &Dns) -> String {
    format!(
        "{}: {} answered, {} timed out, {} still waiting at the end.",
        units::plural(dns.transactions, "transaction", "transactions"),
        units::count(dns.answered),
        units::count(dns.timeouts),
        units::count(dns.pending),
    )
}

/// `NOERROR 610, NXDOMAIN 421`.
pub(super) fn counts(counts: &[Count]) -> String {
    let parts: Vec<String> =
        counts.iter().take(4).map(|c| format!("{} {}", clean(&c.name), units::count(c.count))).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn rcodes(dns: &Dns, top: usize) -> Table {
    let columns = [("response code", Kind::Text), ("answers", Kind::Number), ("share", Kind::Number)];
    Table::of("Answers", &columns, &dns.rcodes, top, |c| {
        let share = c.count as f64 / dns.answered as f64;
        vec![
            Cell::text(&c.name),
            Cell::count(c.count),
            Cell { text: units::percent(share), sort: Some(c.count as f64) },
        ]
    })
}

fn servers(servers: &[DnsServer], top: usize) -> Table {
    let columns = [
        ("server", Kind::Text),
        ("over", Kind::Text),
        ("queries", Kind::Number),
        ("timeouts", Kind::Number),
        ("failures", Kind::Number),
        ("p50", Kind::Number),
        ("p99", Kind::Number),
        ("max", Kind::Number),
    ];
    Table::of("Servers", &columns, servers, top, |s| {
        vec![
            Cell::text(&s.server.to_string()),
            Cell::text(&s.transport),
            Cell::count(s.transactions),
            Cell::count(s.timeouts),
            Cell::count(s.failures),
            Cell::duration(s.hist.quantile_ns(0.5)),
            Cell::duration(s.hist.quantile_ns(0.99)),
            Cell::duration(s.hist.max_ns()),
        ]
    })
}

fn names(dns: &Dns, top: usize) -> Table {
    let columns = [
        ("name", Kind::Text),
        ("type", Kind::Text),
        ("queries", Kind::Number),
        ("timeouts", Kind::Number),
        ("answers", Kind::Text),
        ("mean", Kind::Number),
        ("max", Kind::Number),
    ];
    Table::of("Names", &columns, &dns.names, top, |n| {
        vec![
            Cell::text(&n.name),
            Cell::text(&n.qtype),
            Cell::count(n.transactions),
            Cell::count(n.timeouts),
            Cell { text: counts(&n.rcodes), sort: None },
            Cell::duration(n.mean_ns),
            Cell::duration(n.max_ns),
        ]
    })
}

fn slowest(transactions: &[DnsTransaction], top: usize) -> Table {
    let columns = [
        ("at", Kind::Number),
        ("latency", Kind::Number),
        ("answer", Kind::Text),
        ("name", Kind::Text),
        ("type", Kind::Text),
        ("client", Kind::Text),
        ("server", Kind::Text),
        ("retries", Kind::Number),
    ];
    Table::of("Unanswered and slowest", &columns, transactions, top, |t| {
        vec![
            Cell::duration(t.at_ns),
            match t.latency_ns {
                Some(ns) => Cell::duration(ns),
                // No answer is slower than any.
                None => Cell { text: "-".to_owned(), sort: Some(f64::MAX) },
            },
            Cell::text(t.rcode.as_deref().unwrap_or("no answer")),
            Cell::text(&t.name),
            Cell::text(&t.qtype),
            Cell::text(&t.client.to_string()),
            Cell::text(&format!("{} {}", t.server, t.transport)),
            Cell::count(u64::from(t.retries)),
        ]
    })
}
