//! Which format a scraper gets.
//!
//! Source: <https://prometheus.io/docs/instrumenting/content_negotiation/>, RFC 9110, 12.5.1.

use super::{protobuf, store::Store, text};
use bytes::Bytes;

/// A scrape's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// For the header of that name.
    pub content_type: &'static str,
    /// The metrics.
    pub body: Bytes,
}

/// The formats, the one that tells most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Length-delimited `io.prometheus.client.MetricFamily`: native histograms, and exemplars.
    Protobuf,
    /// OpenMetrics: exemplars.
    OpenMetrics,
    /// What any scraper reads, and people.
    Classic,
}

impl Format {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn encode(store: &Store, native: bool, accept: Option<&str>) -> Encoded {
    let format = negotiate(native, accept.unwrap_or_default());
    let families = store.families();
    let body = match format {
        Format::Protobuf => protobuf::encode(&families).into(),
        Format::OpenMetrics | Format::Classic => text::encode(&families, format).into(),
    };
    Encoded { content_type: format.content_type(), body }
}

/// The format with the largest weight; of equal ones the one that tells most. What is not offered gets the classic one.
fn negotiate(native: bool, accept: &str) -> Format {
    let mut best = (0.0, Format::Classic);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).collect();
        let is = |name: &str, value: &str| {
            let of = parameters.iter().find(|(n, _)| n.trim().eq_ignore_ascii_case(name));
            of.is_some_and(|(_, v)| v.trim().trim_matches('"').eq_ignore_ascii_case(value))
        };
        let format = match media.as_str() {
            "application/vnd.google.protobuf"
                if native
                    && is("proto", "io.prometheus.client.MetricFamily")
                    && is("encoding", "delimited") =>
            {
                Format::Protobuf
            }
            "application/openmetrics-text" => Format::OpenMetrics,
            "text/plain" | "text/*" | "*/*" => Format::Classic,
            _ => continue,
        };
        let weight = parameters.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        let weight = weight.map_or(1.0, |(_, q)| q.trim().parse().unwrap_or(0.0));
        let tells_more = weight == best.0 && weight > 0.0 && (format as u8) < best.1 as u8;
        if weight > best.0 || tells_more {
            best = (weight, format);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_ask_for() {
        let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                          application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let cases = [
            (true, prometheus, Format::Protobuf),
            (false, prometheus, Format::OpenMetrics),
            (true, "application/openmetrics-text; version=1.0.0, text/plain;q=0.5", Format::OpenMetrics),
            (true, "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.2", Format::Classic),
            (true, "text/html,*/*;q=0.8", Format::Classic),
            (true, "application/vnd.google.protobuf;proto=other;encoding=delimited", Format::Classic),
            (true, "application/openmetrics-text;q=0", Format::Classic),
            (true, "application/openmetrics-text;q=x", Format::Classic),
            (true, "", Format::Classic),
            (true, ";;;,,=q", Format::Classic),
        ];
        for (native, accept, format) in cases {
            assert_eq!(negotiate(native, accept), format, "{accept}");
        }
    }
}
