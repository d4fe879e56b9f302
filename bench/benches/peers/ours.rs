//! The library's side of a comparison.

use super::{Case, table::Sample};
use anyhow::{Context as _, Result, ensure};
use nettrace::lab::Pair;
use nettrace_bench::{
    cpu::{Ends, Pinning},
    load::{
        ServerOptions, Servers,
        args::{KindName, LoadArgs},
        client,
    },
};

/// The tools begin to count at once, or after a few requests.
const WARM_UP_SECONDS: f64 = 0.1;

/// Runs a load, both ends pinned.
pub(crate) fn run(pair: &Pair, ends: &Ends, case: &Case, seconds: u32) -> Result<Sample> {
    let is_stream = case.kind == KindName::TcpStream;
    let args = LoadArgs {
        seconds: Some(seconds.into()),
        warm_up_seconds: Some(WARM_UP_SECONDS),
        request_bytes: Some(case.bytes),
        response_bytes: (!is_stream).then_some(case.bytes),
        ..LoadArgs::of(case.kind)
    };
    let profile = args.resolve()?;
    let options = ServerOptions { pinning: Pinning::On(vec![ends.server]), only: None };
    let address = pair.server().ipv4.into();
    let servers = pair.server().netns.run(|| Servers::start(&profile, address, 0, &options))??;
    let options = client::Options { pinning: Pinning::On(vec![ends.client]), ..client::Options::default() };
    let asked = pair.client().netns.run(|| client::run(&profile, &servers.addresses(), &options))??;
    let served = servers.stop()?;
    let (client, server) = asked.first().zip(served.first()).context("a profile without a part")?;
    ensure!(client.errors.total() == 0, "{}: {:?}", case.name(), client.errors.by_name());
    ensure!(client.pinned.why_not.is_none() && server.pinned.why_not.is_none(), "not pinned: {client:?}");
    Ok(match &server.received {
        Some(received) => Sample { per_second: received.per_second(), p50_us: None },
        None => Sample {
            per_second: client.per_second(),
            p50_us: Some(client.latency.value_at_quantile(0.5) as f64 / 1e3),
        },
    })
}
