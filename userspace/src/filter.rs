//! `--filter`: from words to the [`Filter`] that kernel programs apply.
//!
//! Needs the expression as typed; yields a compiled filter whose meaning is
//! [`nettrace_common::filter::matches()`], or an error that points at the offending word. The language:
//!
//! ```text
//! expression = term { "and" term }          each kind of term once
//! term       = "host" ADDRESS { "," ADDRESS }   source or destination, at most 4
//!            | "net" CIDR { "," CIDR }          likewise
//!            | "port" NUMBER { "," NUMBER }     source or destination, at most 4
//!            | "tcp" | "udp" | "icmp" | "proto" NAME-OR-NUMBER
//! ```

use ipnet::IpNet;
use nettrace_common::filter::{Filter, MAX_NETS, MAX_PORTS};
use std::{fmt, net::IpAddr, ops::Range};

/// Protocols by name. `icmp` means ICMPv6 too, see [`Filter::protocol`].
const PROTOCOLS: [(&str, u8); 11] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("icmpv6", 58),
    ("sctp", 132),
];
/// Protocols that are terms by themselves.
const BARE: [&str; 3] = ["tcp", "udp", "icmp"];
const TERMS: &str = "`host`, `net`, `port`, `proto`, `tcp`, `udp` or `icmp`";

/// Why an expression is not a filter. Shown with the expression and a mark under the offending word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    expression: String,
    span: Range<usize>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a word of an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A term was expected.
    #[error("expected {TERMS}, found {0}")]
    Term(Found),
    /// An operator of other filter languages.
    #[error(
        "`{0}` is not supported: terms are joined by `and`; for either of two values write a list, e.g. `port 53,853`"
    )]
    Operator(String),
    /// `and` was expected.
    #[error("expected `and` or the end, found {0}")]
    And(Found),
    /// An address was expected.
    #[error("expected an IP address, found {0}")]
    Host(Found),
    /// A name where an address was expected.
    #[error("`{0}` is a name; names are not looked up, give an IP address")]
    Name(String),
    /// A network where an address was expected.
    #[error("`{0}` is a network; write `net {0}`")]
    NetAsHost(String),
    /// A network was expected.
    #[error("expected a network like 10.0.0.0/8 or fd00::/8, found {0}")]
    Net(Found),
    /// A network with bits set beyond its prefix.
    #[error("`{found}` has bits set beyond its prefix; write `{network}`")]
    HostBits {
        /// What was typed.
        found: String,
        /// The network it lies in.
        network: IpNet,
    },
    /// A port was expected.
    #[error("expected a port, 1 to 65535, found {0}")]
    Port(Found),
    /// A protocol was expected.
    #[error("expected a protocol number, 1 to 255, or a name like tcp, udp, icmp, sctp, found {0}")]
    Protocol(Found),
    /// A kind of term comes twice.
    #[error("{0} is given twice; for either of several values write one list, e.g. `port 53,853`")]
    Twice(&'static str),
    /// A second protocol: no packet has two.
    #[error("a protocol is given already, and no packet has two")]
    TwoProtocols,
    /// A list is too long.
    #[error("too many values: a filter takes at most {0} here")]
    TooMany(usize),
}

/// What was there instead of what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A word.
    Word(String),
    /// Nothing.
    End,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.expression.get(..self.span.start).unwrap_or_default().chars().count();
        let marked = self.expression.get(self.span.clone()).unwrap_or_default().chars().count().max(1);
        writeln!(f, "{}", self.problem)?;
        writeln!(f, "  {}", self.expression)?;
        write!(f, "  {:before$}{:^<marked$}", "", "")
    }
}

impl std::error::Error for FilterError {}

/// Compiles an expression. Nothing but blanks is the filter that passes everything.
///
/// # Errors
/// With the place and the first thing that is wrong.
pub fn parse(expression: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { expression, words: words(expression), at: 0 };
    let mut filter = Filter::default();
    if parser.words.is_empty() {
        return Ok(filter);
    }
    loop {
        parser.term(&mut filter)?;
        match parser.peek() {
            None => return Ok(filter),
            Some(word) if word.eq_ignore_ascii_case("and") => parser.at += 1,
            Some(word) => {
                let problem = operator(word).unwrap_or_else(|| Problem::And(Found::Word(word.to_owned())));
                return Err(parser.error(problem));
            }
        }
    }
}

/// Where the words are; a comma is one of its own.
fn words(expression: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (at, c) in expression.char_indices() {
        let end = at + c.len_utf8();
        if c.is_whitespace() {
            open = false;
        } else if c == ',' || !open {
            words.push(at..end);
            open = c != ',';
        } else if let Some(word) = words.last_mut() {
            word.end = end;
        }
    }
    words
}

/// The complaint about an operator that other filter languages have.
fn operator(word: &str) -> Option<Problem> {
    let known = ["or", "not", "||", "&&", "!", "(", ")"];
    let found = known.iter().any(|k| word.eq_ignore_ascii_case(k)) || word.starts_with(['!', '(']);
    found.then(|| Problem::Operator(word.to_owned()))
}

struct Parser<'a> {
    expression: &'a str,
    words: Vec<Range<usize>>,
    /// The next word.
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).and_then(|span| self.expression.get(span.clone()))
    }

    /// The next word, or the end, for an error about it.
    fn found(&self) -> Found {
        self.peek().map_or(Found::End, |word| Found::Word(word.to_owned()))
    }

    /// An error about the next word, or the end.
    fn error(&self, problem: Problem) -> FilterError {
        let end = self.expression.trim_end().len();
        let span = self.words.get(self.at).cloned().unwrap_or(end..end);
        FilterError { expression: self.expression.to_owned(), span, problem }
    }

    fn term(&mut self, filter: &mut Filter) -> Result<(), FilterError> {
        let Some(word) = self.peek() else { return Err(self.error(Problem::Term(Found::End))) };
        let keyword = word.to_ascii_lowercase();
        let given = |count: u32| count > 0;
        match keyword.as_str() {
            "host" | "net" if given(filter.net_count) => Err(self.error(Problem::Twice("`host` or `net`"))),
            "port" if given(filter.port_count) => Err(self.error(Problem::Twice("`port`"))),
            "proto" if given(filter.protocol) => Err(self.error(Problem::TwoProtocols)),
            bare if BARE.contains(&bare) && given(filter.protocol) => Err(self.error(Problem::TwoProtocols)),
            "host" => self.list(MAX_NETS, Self::host, |n, net| push_net(filter, n, net)),
            "net" => self.list(MAX_NETS, Self::net, |n, net| push_net(filter, n, net)),
            "port" => self.list(MAX_PORTS, Self::port, |n, port| {
                if let Some(slot) = filter.ports.get_mut(n) {
                    *slot = port;
                    filter.port_count = n as u32 + 1;
                }
            }),
            "proto" => {
                self.at += 1;
                filter.protocol = u32::from(self.protocol()?);
                Ok(())
            }
            bare if BARE.contains(&bare) => {
                filter.protocol = u32::from(self.protocol()?);
                Ok(())
            }
            _ => {
                let problem = operator(word).unwrap_or_else(|| Problem::Term(self.found()));
                Err(self.error(problem))
            }
        }
    }

    /// The values after a keyword, handed over with their number from 0.
    fn list<T>(
        &mut self,
        most: usize,
        value: impl Fn(&mut Self) -> Result<T, FilterError>,
        mut push: impl FnMut(usize, T),
    ) -> Result<(), FilterError> {
        self.at += 1;
        for n in 0.. {
            if n == most {
                return Err(self.error(Problem::TooMany(most)));
            }
            push(n, value(self)?);
            if self.peek() != Some(",") {
                break;
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Takes the next word if `parse` understands it; otherwise the error is about it.
    fn value<T>(&mut self, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Result<T, FilterError> {
        let value = parse(self.peek().unwrap_or_default()).map_err(|problem| self.error(problem))?;
        self.at += 1;
        Ok(value)
    }

    fn host(&mut self) -> Result<IpNet, FilterError> {
        let found = self.found();
        self.value(|word| match word.parse::<IpAddr>() {
            // On the wire, an IPv4-mapped address is an IPv4 address.
            Ok(address) => Ok(IpNet::from(address.to_canonical())),
            Err(_) if word.parse::<IpNet>().is_ok() => Err(Problem::NetAsHost(word.to_owned())),
            Err(_) if is_name(word) => Err(Problem::Name(word.to_owned())),
            Err(_) => Err(Problem::Host(found)),
        })
    }

    fn net(&mut self) -> Result<IpNet, FilterError> {
        let found = self.found();
        self.value(|word| {
            if let Ok(address) = word.parse::<IpAddr>() {
                return Ok(IpNet::from(address.to_canonical()));
            }
            let net = match word.parse::<IpNet>() {
                Ok(net) => net,
                Err(_) if is_name(word) => return Err(Problem::Name(word.to_owned())),
                Err(_) => return Err(Problem::Net(found)),
            };
            let network = net.trunc();
            if network == net { Ok(net) } else { Err(Problem::HostBits { found: word.to_owned(), network }) }
        })
    }

    fn port(&mut self) -> Result<u16, FilterError> {
        let found = self.found();
        self.value(|word| match word.parse() {
            Ok(0) | Err(_) => Err(Problem::Port(found)),
            Ok(port) => Ok(port),
        })
    }

    fn protocol(&mut self) -> Result<u8, FilterError> {
        let found = self.found();
        self.value(|word| {
            let named = PROTOCOLS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
            match (named, word.parse()) {
                (Some((_, number)), _) => Ok(*number),
                (None, Ok(0) | Err(_)) => Err(Problem::Protocol(found)),
                (None, Ok(number)) => Ok(number),
            }
        })
    }
}

/// Whether a word that is no address can only be a host name.
fn is_name(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

fn push_net(filter: &mut Filter, n: usize, net: IpNet) {
    let (Some(slot), Some(family)) = (filter.nets.get_mut(n), filter.net_family.get_mut(n)) else { return };
    match (net.network(), net.netmask()) {
        (IpAddr::V4(network), IpAddr::V4(mask)) => {
            slot.addr[..4].copy_from_slice(&network.octets());
            slot.mask[..4].copy_from_slice(&mask.octets());
            *family = 4;
        }
        (IpAddr::V6(network), IpAddr::V6(mask)) => {
            slot.addr = network.octets();
            slot.mask = mask.octets();
            *family = 6;
        }
        // ipnet never mixes the two.
        _ => return,
    }
    filter.net_count = n as u32 + 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use nettrace_common::{filter::matches, wire::Flow};
    use proptest::prelude::*;

    fn flow(source: IpAddr, destination: IpAddr, sport: u16, dport: u16, protocol: u8) -> Flow {
        let mut flow = Flow { sport, dport, protocol, ..Flow::default() };
        for (end, address) in [(&mut flow.saddr, source), (&mut flow.daddr, destination)] {
            match address {
                IpAddr::V4(a) => end[..4].copy_from_slice(&a.octets()),
                IpAddr::V6(a) => *end = a.octets(),
            }
        }
        flow.family = if source.is_ipv4() { 4 } else { 6 };
        flow
    }

    fn passes(expression: &str, flow: &Flow) -> bool {
        matches(&parse(expression).unwrap(), flow)
    }

    #[test]
    fn terms_mean_what_they_say() {
        let f = flow("10.1.2.3".parse().unwrap(), "192.0.2.1".parse().unwrap(), 40_000, 53, 17);
        for expression in [
            "",
            "  ",
            "host 10.1.2.3",
            "host 192.0.2.1",
            "host 1.1.1.1,10.1.2.3",
            "HOST 1.1.1.1 , 10.1.2.3",
            "host ::ffff:10.1.2.3",
            "net 10.0.0.0/8",
            "net fd00::/8,10.1.2.3",
            "net 0.0.0.0/0",
            "port 53",
            "port 1, 2,40000",
            "udp",
            "proto 17",
            "proto UDP",
            "udp and port 53 and net 10.0.0.0/8",
        ] {
            assert!(passes(expression, &f), "{expression}");
        }
        for expression in ["tcp", "host 10.1.2.4", "net ::/0", "port 54", "udp and port 54", "proto sctp"] {
            assert!(!passes(expression, &f), "{expression}");
        }
    }

    fn error(expression: &str) -> String {
        parse(expression).unwrap_err().to_string()
    }

    #[test]
    fn an_error_points_at_the_word() {
        let expected = "`kube-dns.local` is a name; names are not looked up, give an IP address\n  \
                        udp and host kube-dns.local and port 53\n               ^^^^^^^^^^^^^^";
        assert_eq!(error("udp and host kube-dns.local and port 53"), expected);
        assert!(error("port").ends_with("found the end\n  port\n      ^"));
    }

    #[test]
    fn every_problem_is_told() {
        for (expression, problem) in [
            ("hots 1.1.1.1", "expected `host`, `net`"),
            ("tcp and", "found the end"),
            ("tcp port 53", "expected `and` or the end, found `port`"),
            ("tcp or udp", "`or` is not supported"),
            ("not tcp", "`not` is not supported"),
            ("(tcp)", "`(tcp)` is not supported"),
            ("host 10.0.0.0/8", "write `net 10.0.0.0/8`"),
            ("host 1.2.3", "expected an IP address, found `1.2.3`"),
            ("host 1.1.1.1,", "expected an IP address, found the end"),
            ("net 10.0.0.0/33", "expected a network"),
            ("net 10.1.2.3/8", "write `10.0.0.0/8`"),
            ("net example", "is a name"),
            ("port 0", "expected a port, 1 to 65535, found `0`"),
            ("port 65536", "found `65536`"),
            ("port http", "found `http`"),
            ("proto 0", "expected a protocol number"),
            ("proto 256", "expected a protocol number"),
            ("proto quic", "expected a protocol number"),
            ("tcp and udp", "no packet has two"),
            ("icmp and proto 6", "no packet has two"),
            ("port 1 and port 2", "`port` is given twice"),
            ("host 1.1.1.1 and net 10.0.0.0/8", "`host` or `net` is given twice"),
            ("port 1,2,3,4,5", "too many values: a filter takes at most 4"),
            ("host 1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5", "too many values"),
            (",", "found `,`"),
        ] {
            let text = error(expression);
            assert!(text.contains(problem), "{expression}: {text}");
        }
    }

    #[test]
    fn four_of_each_fit() {
        let filter = parse("host 1.1.1.1,1.1.1.2,::1,::2 and port 1,2,3,4").unwrap();
        assert_eq!((filter.net_count, filter.port_count), (4, 4));
        assert_eq!(filter.net_family, [4, 4, 6, 6]);
    }

    /// Addresses of both versions that are near each other, so that networks are hit.
    fn address() -> impl Strategy<Value = IpAddr> {
        let near = || prop_oneof![Just(0_u8), Just(1), Just(128), any::<u8>()];
        prop_oneof![
            [near(), near(), near(), near()].prop_map(|o| IpAddr::from([10 | o[0] & 1, o[1], o[2], o[3]])),
            [near(), near(), near()]
                .prop_map(|o| { IpAddr::from([0xfd, 0, o[0], 0, 0, 0, 0, 0, o[1], 0, 0, 0, 0, 0, 0, o[2]]) }),
        ]
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (address(), 0_u8..=128).prop_map(|(address, prefix)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, prefix.min(most)).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn networks_are_those_of_ipnet(
            nets in prop::collection::vec(network(), 1..=4),
            (a, b) in (address(), address()).prop_filter("one version", |(a, b)| a.is_ipv4() == b.is_ipv4()),
        ) {
            let list: Vec<_> = nets.iter().map(ToString::to_string).collect();
            let filter = parse(&format!("net {}", list.join(","))).unwrap();
            let expected = nets.iter().any(|n| n.contains(&a) || n.contains(&b));
            prop_assert_eq!(matches(&filter, &flow(a, b, 1, 2, 6)), expected);
        }

        #[test]
        fn hosts_and_ports_are_lists(
            hosts in prop::collection::vec(address(), 1..=4),
            ports in prop::collection::vec(1_u16..6, 1..=4),
            (sport, dport) in (0_u16..6, 0_u16..6),
            (a, b) in (address(), address()).prop_filter("one version", |(a, b)| a.is_ipv4() == b.is_ipv4()),
        ) {
            let list: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            let port_list: Vec<_> = ports.iter().map(ToString::to_string).collect();
            let filter = parse(&format!("host {} and port {}", list.join(","), port_list.join(","))).unwrap();
            let expected = (hosts.contains(&a) || hosts.contains(&b))
                && (ports.contains(&sport) || ports.contains(&dport));
            prop_assert_eq!(matches(&filter, &flow(a, b, sport, dport, 6)), expected);
        }

        #[test]
        fn any_text_is_a_filter_or_an_error(text in "\\PC*|((host|net|port|and|tcp|1|,|::|/|é) ?){0,9}") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.to_string().contains('^'));
            }
        }
    }
}
