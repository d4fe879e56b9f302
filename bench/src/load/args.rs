//! What was typed about a load, on the command line or in a file, and what it means.
//!
//! [`LoadArgs`] is both: `clap` reads it from options, `toml` from a table. What is left out has a default that depends on the
//! kind. [`LoadArgs::resolve`] yields the [`Profile`] that both ends act on.
//!
//! ```toml
//! name = "shop"
//! seconds = 10                 # of all parts that do not say otherwise
//!
//! [[part]]
//! kind = "http_rr"
//! rate = 2000                  # an open loop
//! arrivals = "poisson"
//! connections = 8
//!
//! [[part]]
//! name = "backup"
//! kind = "tcp_stream"
//! connections = 2
//! mbit_per_second = 400
//! ```

use super::{
    LoadError,
    spec::{Arrivals, Dns, Kind, Load, Pace, Profile, Record, Service, Times, Transport},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bytes of one write of a stream.
const WRITE_BYTES: u32 = 128 << 10;
/// As `listen(2)` has it in the standard library.
const BACKLOG: u32 = 4096;
/// Connections on their way at once: less than the 1,024 descriptors that a process may have by default.
const IN_FLIGHT: u32 = 900;
/// Requests of a burst.
const BURST: u32 = 100;
/// What is asked of a name server that is not told.
const NAME: &str = "nettrace.example";
/// Time that each of the times has.
const SECONDS: f64 = 10.0;
const WARM_UP_SECONDS: f64 = 0.5;
const LIMIT_SECONDS: f64 = 1.0;
/// A connection is not given up before its SYN was sent twice more (RFC 6298: after 1 and 3 s).
const BURST_LIMIT_SECONDS: f64 = 5.0;

/// A kind of load, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum KindName {
    /// Requests and responses over TCP connections that stay.
    TcpRr,
    /// A new TCP connection for each request.
    TcpCrr,
    /// As much as goes one way over TCP.
    TcpStream,
    /// Requests and responses by UDP.
    UdpRr,
    /// Datagrams one way.
    UdpFlood,
    /// DNS queries.
    Dns,
    /// HTTP/1.1 over connections that stay.
    HttpRr,
    /// HTTP/1.1, a new connection for each request.
    HttpCrr,
    /// Many new TCP connections at once.
    ConnectBurst,
    /// `tcp_rr` while `tcp_stream` fills the link: two loads at once.
    RrUnderBulk,
}

impl KindName {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp_rr",
            Self::TcpCrr => "tcp_crr",
            Self::TcpStream => "tcp_stream",
            Self::UdpRr => "udp_rr",
            Self::UdpFlood => "udp_flood",
            Self::Dns => "dns",
            Self::HttpRr => "http_rr",
            Self::HttpCrr => "http_crr",
            Self::ConnectBurst => "connect_burst",
            Self::RrUnderBulk => "rr_under_bulk",
        }
    }
}

/// How requests of an open loop come, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalName {
    /// The same time between any two.
    Constant,
    /// As independent clients come.
    Poisson,
}

/// One load as it was typed; what is not, has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct LoadArgs {
    /// Name of this load in results [default: its kind]
    #[arg(long)]
    pub name: Option<String>,
    /// What is asked [default: tcp_rr]
    #[arg(long, value_enum)]
    pub kind: Option<KindName>,
    /// Connections, streams or sockets at once [default: 1]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,
    /// Payload of a request or datagram [default: 1; of a write of a stream 128 KiB]
    #[arg(long, value_name = "BYTES")]
    pub request_bytes: Option<u32>,
    /// Payload of a response [default: 1; of an HTTP body 1024]
    #[arg(long, value_name = "BYTES")]
    pub response_bytes: Option<u32>,
    /// Requests or datagrams a second of all connections together, by a schedule that waits for no answer
    /// [default: the next follows the last answer]
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// How those of a schedule come [default: poisson; of a flood constant]
    #[arg(long, value_enum)]
    pub arrivals: Option<ArrivalName>,
    /// Connections of a burst that are made at once [default: 100]
    #[arg(long, value_name = "N")]
    pub burst: Option<u32>,
    /// Most that a stream sends, all connections together [default: as much as goes]
    #[arg(long, value_name = "MBIT")]
    pub mbit_per_second: Option<f64>,
    /// Streams of the bulk in rr_under_bulk [default: 1]
    #[arg(long, value_name = "N")]
    pub bulk_connections: Option<u32>,
    /// Length of the measurement [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Load before it [default: 0.5]
    #[arg(long, value_name = "SECONDS")]
    pub warm_up_seconds: Option<f64>,
    /// How long an answer may take [default: 1; of a burst 5]
    #[arg(long, value_name = "SECONDS")]
    pub limit_seconds: Option<f64>,
    /// What DNS goes by [default: udp]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// A name to ask for; may be repeated
    #[arg(long = "query", value_name = "NAME")]
    pub names: Vec<String>,
    /// What is asked of the names [default: a]
    #[arg(long, value_enum)]
    pub record: Option<Record>,
    /// Connections that wait to be accepted [default: 4096]
    #[arg(long, value_name = "N")]
    pub backlog: Option<u32>,
    /// Threads of the server [default: as many as the load takes]
    #[arg(long, value_name = "N")]
    pub server_threads: Option<u32>,
    /// Connections on their way at once, where each request has its own [default: 900, or as many as a burst has]
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u32>,
    /// Seed of what is left to chance [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The server thinks so long about each request
    #[arg(long, value_name = "US")]
    pub think_us: Option<f64>,
    /// It thinks longer about this share of requests
    #[arg(long, value_name = "SHARE", requires = "slow_us")]
    pub slow_share: Option<f64>,
    /// How much longer
    #[arg(long, value_name = "US", requires = "slow_share")]
    pub slow_us: Option<f64>,
    /// It does nothing at all once in so long
    #[arg(long, value_name = "MS", requires = "stall_ms")]
    pub stall_every_ms: Option<f64>,
    /// How long it does nothing then
    #[arg(long, value_name = "MS", requires = "stall_every_ms")]
    pub stall_ms: Option<f64>,
}

/// A profile as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    seconds: Option<f64>,
    warm_up_seconds: Option<f64>,
    limit_seconds: Option<f64>,
    seed: Option<u64>,
    #[serde(default)]
    part: Vec<LoadArgs>,
}

impl Profile {
    /// Reads a profile of several loads, see the head of [`super::args`].
    ///
    /// # Errors
    /// [`LoadError::Toml`] with line and column for what cannot be read, and what [`LoadArgs::resolve`] says of a part.
    pub fn from_toml(text: &str) -> Result<Self, LoadError> {
        let file: File = toml::from_str(text).map_err(|error| LoadError::Toml(Box::new(error)))?;
        let mut parts = Vec::new();
        for mut part in file.part {
            part.seconds = part.seconds.or(file.seconds);
            part.warm_up_seconds = part.warm_up_seconds.or(file.warm_up_seconds);
            part.limit_seconds = part.limit_seconds.or(file.limit_seconds);
            part.seed = part.seed.or(file.seed);
            parts.extend(part.resolve()?.parts);
        }
        let profile = Self { name: file.name, parts };
        profile.check()?;
        Ok(profile)
    }
}

impl LoadArgs {
    /// Of a kind, all else by default.
    #[must_use]
    pub fn of(kind: KindName) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// What it means: one load, or several that run at once.
    ///
    /// # Errors
    /// [`LoadError::Option`] for what means nothing for the kind, [`LoadError::Spec`] for a number that cannot be.
    pub fn resolve(&self) -> Result<Profile, LoadError> {
        let kind = self.kind.unwrap_or(KindName::TcpRr);
        self.check_options(kind)?;
        let name = self.name.clone().unwrap_or_else(|| kind.name().to_owned());
        let parts = match kind {
            KindName::RrUnderBulk => {
                let connections = self.bulk_connections;
                let bulk = Self {
                    connections,
                    rate: None,
                    request_bytes: None,
                    response_bytes: None,
                    ..self.clone()
                };
                vec![
                    self.load(KindName::TcpRr, &name)?,
                    bulk.load(KindName::TcpStream, &format!("{name}.bulk"))?,
                ]
            }
            kind => vec![self.load(kind, &name)?],
        };
        let profile = Profile { name, parts };
        profile.check()?;
        Ok(profile)
    }

    /// Options that would be silently without effect are refused.
    fn check_options(&self, kind: KindName) -> Result<(), LoadError> {
        use KindName as K;
        let one_way = matches!(kind, K::TcpStream | K::UdpFlood);
        let dns = kind == K::Dns;
        let streams = matches!(kind, K::TcpStream | K::RrUnderBulk);
        let udp = matches!(kind, K::UdpRr | K::UdpFlood)
            || dns && matches!(self.transport, None | Some(Transport::Udp));
        for (given, means, option) in [
            (self.response_bytes.is_some(), !one_way && !dns, "response_bytes"),
            (self.request_bytes.is_some(), !dns, "request_bytes"),
            (self.rate.is_some(), kind != K::TcpStream, "rate"),
            (
                self.arrivals.is_some(),
                self.rate.is_some() && kind != K::ConnectBurst,
                "arrivals without rate",
            ),
            (self.burst.is_some(), kind == K::ConnectBurst, "burst"),
            (self.mbit_per_second.is_some(), streams, "mbit_per_second"),
            (self.bulk_connections.is_some(), kind == K::RrUnderBulk, "bulk_connections"),
            (self.transport.is_some(), dns, "transport"),
            (!self.names.is_empty(), dns, "names"),
            (self.record.is_some(), dns, "record"),
            (self.backlog.is_some(), !udp, "backlog"),
            (self.in_flight.is_some(), matches!(kind, K::TcpCrr | K::HttpCrr | K::ConnectBurst), "in_flight"),
        ] {
            if given && !means {
                let load = self.name.clone().unwrap_or_else(|| kind.name().to_owned());
                return Err(LoadError::Option { load, option, kind: kind.name() });
            }
        }
        Ok(())
    }

    fn load(&self, kind: KindName, name: &str) -> Result<Load, LoadError> {
        let time = |field, seconds: Option<f64>, default: f64| {
            duration(name, field, seconds.unwrap_or(default), 1.0)
        };
        let limit = if kind == KindName::ConnectBurst { BURST_LIMIT_SECONDS } else { LIMIT_SECONDS };
        let part = |field, value: Option<f64>, unit| duration(name, field, value.unwrap_or(0.0), unit);
        let one_way = matches!(kind, KindName::TcpStream | KindName::UdpFlood);
        let http = matches!(kind, KindName::HttpRr | KindName::HttpCrr);
        let request_bytes = match kind {
            KindName::TcpStream => WRITE_BYTES,
            _ if http => 0,
            _ => 1,
        };
        let response_bytes = if one_way {
            0
        } else if http {
            1024
        } else {
            1
        };
        let request_bytes = self.request_bytes.unwrap_or(request_bytes);
        Ok(Load {
            name: name.to_owned(),
            kind: self.kind_of(kind),
            connections: self.connections.unwrap_or(1),
            request_bytes,
            response_bytes: self.response_bytes.unwrap_or(response_bytes),
            pace: self.pace(kind, request_bytes),
            times: Times {
                warm_up: time("warm_up_seconds", self.warm_up_seconds, WARM_UP_SECONDS)?,
                measure: time("seconds", self.seconds, SECONDS)?,
                limit: time("limit_seconds", self.limit_seconds, limit)?,
            },
            backlog: self.backlog.unwrap_or(BACKLOG),
            server_threads: self.server_threads.unwrap_or(0),
            in_flight: self.in_flight.unwrap_or_else(|| self.burst.unwrap_or(0).max(IN_FLIGHT)),
            seed: self.seed.unwrap_or(1),
            service: Service {
                think: part("think_us", self.think_us, 1e-6)?,
                slow_share: self.slow_share.unwrap_or(0.0),
                slow: part("slow_us", self.slow_us, 1e-6)?,
                stall_every: part("stall_every_ms", self.stall_every_ms, 1e-3)?,
                stall: part("stall_ms", self.stall_ms, 1e-3)?,
            },
        })
    }

    fn kind_of(&self, kind: KindName) -> Kind {
        match kind {
            KindName::TcpRr | KindName::RrUnderBulk => Kind::TcpRr,
            KindName::TcpCrr | KindName::ConnectBurst => Kind::TcpCrr,
            KindName::TcpStream => Kind::TcpStream,
            KindName::UdpRr => Kind::UdpRr,
            KindName::UdpFlood => Kind::UdpFlood,
            KindName::HttpRr => Kind::HttpRr,
            KindName::HttpCrr => Kind::HttpCrr,
            KindName::Dns => Kind::Dns(Dns {
                transport: self.transport.unwrap_or_default(),
                names: if self.names.is_empty() { vec![NAME.to_owned()] } else { self.names.clone() },
                record: self.record.unwrap_or_default(),
            }),
        }
    }

    fn pace(&self, kind: KindName, request_bytes: u32) -> Pace {
        let open = |rate_per_second, arrivals| Pace::Open { rate_per_second, arrivals };
        match (kind, self.rate, self.mbit_per_second) {
            (KindName::ConnectBurst, rate, _) => {
                let burst = self.burst.unwrap_or(BURST);
                // One a second.
                open(rate.unwrap_or_else(|| f64::from(burst)), Arrivals::Burst(burst))
            }
            (KindName::TcpStream, _, Some(mbit)) => {
                open(mbit * 1e6 / 8.0 / f64::from(request_bytes.max(1)), Arrivals::Constant)
            }
            (KindName::TcpStream, ..) | (_, None, _) => Pace::Closed,
            (_, Some(rate), _) => {
                let default =
                    if kind == KindName::UdpFlood { ArrivalName::Constant } else { ArrivalName::Poisson };
                open(
                    rate,
                    match self.arrivals.unwrap_or(default) {
                        ArrivalName::Constant => Arrivals::Constant,
                        ArrivalName::Poisson => Arrivals::Poisson,
                    },
                )
            }
        }
    }
}

fn duration(load: &str, field: &'static str, value: f64, unit_seconds: f64) -> Result<Duration, LoadError> {
    Duration::try_from_secs_f64(value * unit_seconds).map_err(|error| LoadError::Spec {
        load: load.to_owned(),
        field,
        value: value.to_string(),
        bounds: format!("a time ({error})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn every_kind_has_defaults_that_can_be_run() {
        for kind in KindName::value_variants() {
            let profile = LoadArgs::of(*kind).resolve().unwrap();
            assert_eq!(profile.name, kind.name());
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
            // What both ends are told is what the client means.
            let sent = serde_json::to_string(&profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&sent).unwrap(), profile);
        }
    }

    #[test]
    fn options_mean_what_they_say() {
        let args = LoadArgs {
            rate: Some(200.0),
            seconds: Some(2.5),
            transport: Some(Transport::Tcp),
            names: vec!["a.example".to_owned()],
            stall_every_ms: Some(1000.0),
            stall_ms: Some(0.5),
            ..LoadArgs::of(KindName::Dns)
        };
        let load = args.resolve().unwrap().parts.remove(0);
        assert_eq!(load.pace, Pace::Open { rate_per_second: 200.0, arrivals: Arrivals::Poisson });
        assert_eq!(load.times.measure, Duration::from_millis(2500));
        assert_eq!(load.service.stall, Duration::from_micros(500));
        let bulk = LoadArgs { mbit_per_second: Some(100.0), ..LoadArgs::of(KindName::TcpStream) };
        let load = bulk.resolve().unwrap().parts.remove(0);
        let expected = 100e6 / 8.0 / f64::from(WRITE_BYTES);
        assert_eq!(load.pace, Pace::Open { rate_per_second: expected, arrivals: Arrivals::Constant });
    }

    #[test]
    fn what_has_no_effect_and_what_cannot_be_is_refused_by_name() {
        let of = LoadArgs::of;
        let option = |args: LoadArgs| match args.resolve() {
            Err(LoadError::Option { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        assert_eq!(option(LoadArgs { burst: Some(3), ..of(KindName::TcpRr) }), "burst");
        assert_eq!(option(LoadArgs { response_bytes: Some(3), ..of(KindName::UdpFlood) }), "response_bytes");
        assert_eq!(option(LoadArgs { backlog: Some(3), ..of(KindName::Dns) }), "backlog");
        let arrivals = Some(ArrivalName::Constant);
        assert_eq!(option(LoadArgs { arrivals, ..of(KindName::TcpRr) }), "arrivals without rate");
        let field = |args: LoadArgs| match args.resolve() {
            Err(LoadError::Spec { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(LoadArgs { connections: Some(0), ..of(KindName::TcpRr) }), "connections");
        assert_eq!(field(LoadArgs { request_bytes: Some(70_000), ..of(KindName::UdpRr) }), "request_bytes");
        assert_eq!(field(LoadArgs { rate: Some(f64::NAN), ..of(KindName::UdpRr) }), "rate_per_second");
        assert_eq!(field(LoadArgs { seconds: Some(-1.0), ..of(KindName::UdpRr) }), "seconds");
        assert_eq!(field(LoadArgs { seconds: Some(1e30), ..of(KindName::UdpRr) }), "seconds");
        assert_eq!(field(LoadArgs { seconds: Some(1e6), ..of(KindName::UdpRr) }), "measure");
        assert_eq!(field(LoadArgs { slow_share: Some(1.5), ..of(KindName::UdpRr) }), "slow_share");
        assert_eq!(field(LoadArgs { stall_ms: Some(5.0), ..of(KindName::UdpRr) }), "stall");
        assert_eq!(field(LoadArgs { names: vec!["a..b".to_owned()], ..of(KindName::Dns) }), "names");
        let uneven = LoadArgs { burst: Some(5), connections: Some(2), ..of(KindName::ConnectBurst) };
        assert_eq!(field(uneven), "burst");
    }

    #[test]
    fn a_file_has_several_loads_and_times_of_all() {
        let text = r#"
            name = "shop"
            seconds = 3
            [[part]]
            kind = "http_rr"
            rate = 2000
            arrivals = "poisson"
            connections = 8
            [[part]]
            name = "backup"
            kind = "tcp_stream"
            seconds = 1.5
            mbit_per_second = 400
            [[part]]
            kind = "rr_under_bulk"
        "#;
        let profile = Profile::from_toml(text).unwrap();
        let parts: Vec<_> =
            profile.parts.iter().map(|p| (p.name.as_str(), p.times.measure.as_millis())).collect();
        let expected =
            [("http_rr", 3000), ("backup", 1500), ("rr_under_bulk", 3000), ("rr_under_bulk.bulk", 3000)];
        assert_eq!((profile.name.as_str(), &parts[..]), ("shop", &expected[..]));
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        let error = |text: &str| Profile::from_toml(text).unwrap_err().to_string();
        let unknown = error("name = \"x\"\n[[part]]\nkind = \"tcp_rr\"\nspeed = 3\n");
        assert!(unknown.contains("line 4") && unknown.contains("speed"), "{unknown}");
        assert!(error("name = \"x\"\n[[part]]\nkind = \"tcp\"\n").contains("tcp_rr"));
        assert!(error("name = \"x\"\n").contains("0 parts"));
        let twice = "name = \"x\"\n[[part]]\nkind = \"dns\"\n[[part]]\nkind = \"dns\"\n";
        assert!(error(twice).contains("two parts named dns"));
        assert!(error("[[part]]").contains("name"));
    }
}
