//! The library's side of a comparison. Its server is a process of its own, as the tools' are: to change between two processes
//! takes a CPU longer than between two threads of one, by as much as is compared here.

use super::{Case, table::Sample, tools::inside};
use anyhow::{Context as _, Result, ensure};
use nettrace::lab::Pair;
use nettrace_bench::{
    cpu::{Ends, Pinning},
    load::{
        Profile, Served, ServerOptions, Servers,
        args::{KindName, LoadArgs},
        client,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

/// What a server's process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    profile: Profile,
    address: IpAddr,
    cpu: usize,
}

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
    let order = Order { profile, address: pair.server().ipv4.into(), cpu: ends.server };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", &serde_json::to_string(&order)?]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = inside(&pair.server().netns, ends.server, || command.spawn())?.context("our server")?;
    let stdin = server.stdin.take();
    let mut lines = BufReader::new(server.stdout.take().context("our server has no output")?).lines();
    let mut line = || lines.next().context("our server has ended")?.context("our server's output");
    let addresses: Vec<SocketAddr> = serde_json::from_str(&line()?)?;
    let options = client::Options { pinning: Pinning::On(vec![ends.client]), ..client::Options::default() };
    let asked = pair.client().netns.run(|| client::run(&order.profile, &addresses, &options));
    // It ends with its input, however the client fared.
    drop(stdin);
    let served: Vec<Served> = serde_json::from_str(&line()?)?;
    ensure!(server.wait()?.success(), "our server failed");
    let asked = asked??;
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

/// The server's process: serves until its input ends.
pub(crate) fn serve(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order).context("the server's orders")?;
    let options = ServerOptions { pinning: Pinning::On(vec![order.cpu]), only: None };
    let servers = Servers::start(&order.profile, order.address, 0, &options)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&servers.addresses())?)?;
    out.flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    writeln!(out, "{}", serde_json::to_string(&servers.stop()?)?)?;
    Ok(())
}
