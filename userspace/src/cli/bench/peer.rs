//! `bench server`, and how its clients find it.

use super::text_of;
use crate::cli::{
    Exit,
    bench_args::{BenchServerArgs, PeerArgs},
    commands::{Failure, say},
    run::interrupt,
};
use anyhow::{Context as _, anyhow};
use nettrace_bench::{
    cpu::Pinning,
    load::Stop,
    peer::{Client, Config, Event, Server, Token},
};
use std::{
    fs::OpenOptions, io::Write as _, net::SocketAddr, os::unix::fs::OpenOptionsExt as _, path::Path,
    time::Duration,
};

/// How long a server may take to answer a client that comes.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects to the server of `--peer`.
pub(in crate::cli) fn connect(args: &PeerArgs, address: SocketAddr) -> Result<Client, Failure> {
    let path =
        args.token_file.as_deref().ok_or_else(|| Failure::usage(anyhow!("--token-file is missing")))?;
    let token = Token::new(text_of(path)?.trim())?;
    Ok(Client::connect(address, &token, CONNECT)?)
}

/// Waits for clients until Ctrl-C.
pub(super) fn server(args: &BenchServerArgs) -> Result<Exit, Failure> {
    let stop = Stop::from(interrupt()?);
    let token = token(&args.token_file)?;
    let pinning = if args.no_pin { Pinning::Off } else { Pinning::Auto };
    let server = Server::bind(Config {
        control: args.listen,
        data: args.data.unwrap_or(args.listen.ip()),
        data_port: args.data_port,
        pinning,
        ..Config::new(token)
    })?;
    say(&format!("waiting for clients at {}; Ctrl-C ends it", server.address()));
    server.run(&stop, |event| match event {
        Event::TurnedAway { peer, error } => say(&format!("{peer} was turned away: {error}")),
        Event::Started { peer, profile, addresses } => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            say(&format!("{peer} runs {} at {}", profile.name, addresses.join(", ")));
        }
        Event::Finished { peer, served, partial } => {
            let requests: u64 = served.iter().map(|s| s.requests).sum();
            let why = partial.map(|why| format!("; not whole: {why}")).unwrap_or_default();
            say(&format!("{peer} is done, {requests} requests{why}"));
        }
    });
    Ok(Exit::Ok)
}

/// The token of a file; a new one, for root alone, where there is none.
fn token(path: &Path) -> Result<Token, Failure> {
    if path.exists() {
        return Ok(Token::new(text_of(path)?.trim())?);
    }
    let (token, text) = Token::generate()?;
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    });
    written.with_context(|| format!("cannot write {}", path.display())).map_err(Failure::usage)?;
    say(&format!("made a token in {}: the client needs the same file", path.display()));
    Ok(token)
}
