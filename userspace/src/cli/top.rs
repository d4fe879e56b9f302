//! `nettrace top`: a screen on a terminal, and text or JSON elsewhere.

use super::{
    CaptureArgs, Exit,
    commands::{Failure, colorful, say},
    run, value,
};
use crate::{
    config::{Top, TopSource},
    live::Frame,
    recommend::Finding,
    report,
    top::{
        self, Agent, ClientError, Feed, Source, State, Theme, TopError, Update,
        plain::{self, Format},
    },
};
use anyhow::Context as _;
use clap::Args;
use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How often an interrupt is looked after.
const TICK: Duration = Duration::from_millis(50);
/// How long a single window waits for an agent's findings.
const FINDINGS: Duration = Duration::from_secs(2);

/// `top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Show what an agent sees instead of measuring [default without a URL: http://127.0.0.1:9464]
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        default_missing_value = top::DEFAULT_URL,
        conflicts_with_all = [
            "interval", "iface", "exclude", "netns", "signals", "source", "filter", "lab", "exemplar", "sample",
            "packet_budget", "ring_size", "dns_port", "dns_timeout", "xdp",
        ]
    )]
    pub agent: Option<String>,
    /// The agent's token is in this file
    #[arg(long, value_name = "FILE", requires = "agent")]
    pub token_file: Option<PathBuf>,
    /// The agent's certificate is by an authority in this file (PEM) [default: those that this machine trusts]
    #[arg(long, value_name = "FILE", requires = "agent")]
    pub ca_file: Option<PathBuf>,
    /// How long a window is
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = value::duration)]
    pub interval: Duration,
    /// Write one window and end
    #[arg(long)]
    pub once: bool,
    /// Write windows one after the other, and show no screen [default: text where standard output is no terminal]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Show nothing but ASCII [default: what the locale says]
    #[arg(long)]
    pub ascii: bool,
    /// What is measured.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        use ClientError::{Certificates, Clear, File, NoRoots, Token, Url};
        match error {
            Url { .. } | Clear(_) | File { .. } | Token(_) | Certificates(_) | NoRoots => Self::usage(error),
            error => anyhow::Error::new(error).into(),
        }
    }
}

impl From<TopError> for Failure {
    fn from(error: TopError) -> Self {
        match error {
            TopError::Capture(error) => error.into(),
            error => anyhow::Error::new(error).into(),
        }
    }
}

/// Shows, or writes, until it is over.
pub(super) fn top(config: &Top) -> Result<Exit, Failure> {
    let interrupted = run::interrupt()?;
    let (feed, source) = open(&config.source)?;
    if is_screen() && !config.once && config.format.is_none() {
        let state = State::new(source, Theme::of_environment(config.ascii), 0);
        top::run(feed, state, config.duration, &interrupted)?;
        return Ok(Exit::Ok);
    }
    let mut writer = Writer { config, out: io::stdout().lock(), findings: None, written: None };
    let written = writer.follow(&feed, source != Source::Own, &interrupted);
    let ended = feed.end();
    match written {
        // A reader that has had enough (`| head`) is not an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write to standard output")?,
    }
    ended?;
    Ok(Exit::Ok)
}

/// Whether there is a terminal that takes commands, for keys and for what is shown.
fn is_screen() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb
}

fn open(source: &TopSource) -> Result<(Feed, Source), Failure> {
    match source {
        TopSource::Agent { url, token_file, ca_file } => {
            let agent = Agent::new(url, token_file.as_deref(), ca_file.as_deref())?;
            let source = Source::Agent(agent.url().to_owned());
            Ok((top::follow(agent)?, source))
        }
        TopSource::Capture { capture, interval } => {
            let (capture, lab) = run::start_with_lab(capture)?;
            Ok((top::measure(capture, *interval, lab)?, Source::Own))
        }
    }
}

/// Writes frames as they come.
struct Writer<'a, W> {
    config: &'a Top,
    out: W,
    findings: Option<Vec<Finding>>,
    /// When the last one ended that was written, Unix time, ms.
    written: Option<u64>,
}

impl<W: io::Write> Writer<'_, W> {
    /// Until the time is up, or an interrupt, or nothing comes any more.
    fn follow(&mut self, feed: &Feed, is_agent: bool, interrupted: &AtomicBool) -> io::Result<()> {
        let started = Instant::now();
        // With `--once`, the frame that waits for its findings, and until when.
        let mut only: Option<(Frame, Instant)> = None;
        while !interrupted.load(Ordering::Relaxed) {
            if self.config.duration.is_some_and(|limit| started.elapsed() >= limit) {
                return Ok(());
            }
            if let Some((frame, until)) = &only {
                // Advice takes longer than a window; an agent has it already.
                let enough = !is_agent || self.findings.is_some() || self.config.format == Some(Format::Json);
                if enough || Instant::now() >= *until {
                    return self.write(frame);
                }
            }
            let Ok(update) = feed.next(TICK) else { return Ok(()) };
            match update {
                Some(Update::Findings(findings)) => self.findings = Some(findings),
                Some(Update::Lost(why)) => say(&format!("{why}; trying again")),
                Some(Update::Frame(frame)) if self.config.once => {
                    only.get_or_insert((*frame, Instant::now() + FINDINGS));
                }
                Some(Update::History(mut frames)) if self.config.once => {
                    only = only.or(frames.pop().map(|frame| (frame, Instant::now() + FINDINGS)));
                }
                Some(Update::Frame(frame)) => self.write(&frame)?,
                // What came while the agent was lost; what was before is no news.
                Some(Update::History(frames)) => {
                    let missed = |f: &&Frame| self.written.is_some_and(|last| f.at_unix_ms > last);
                    let missed: Vec<_> = frames.iter().filter(missed).collect();
                    missed.into_iter().try_for_each(|frame| self.write(frame))?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.written = Some(frame.at_unix_ms);
        let text = match self.config.format.unwrap_or_default() {
            Format::Json => plain::json(frame)?,
            Format::Text => {
                let options = report::Options { color: colorful(), ..report::Options::default() };
                plain::text(frame, self.findings.as_ref(), &options) + "\n"
            }
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::Cli, config, snapshot::sample};
    use clap::Parser as _;

    fn typed(line: &str) -> Result<Top, String> {
        let words = ["nettrace", "top"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match config::resolve(cli, 4096).map_err(|error| error.to_string())?.action {
            config::Action::Top(top) => Ok(*top),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn it_lasts_until_somebody_ends_it() {
        let top = typed("").unwrap();
        assert_eq!((top.duration, top.once, top.format), (None, false, None));
        assert!(
            matches!(top.source, TopSource::Capture { interval, .. } if interval == Duration::from_secs(2))
        );
        assert_eq!(typed("-d 30s").unwrap().duration, Some(Duration::from_secs(30)));
    }

    #[test]
    fn an_agent_measures_by_itself() {
        let at = |line: &str| match typed(line).unwrap().source {
            TopSource::Agent { url, .. } => url,
            TopSource::Capture { .. } => panic!("{line}"),
        };
        assert_eq!(at("--agent"), top::DEFAULT_URL);
        assert_eq!(at("--agent https://node:1 -d 1m"), "https://node:1");
        for capture in ["--interval 1s", "-i eth0", "--filter tcp", "--lab", "--signals rx", "--netns 1"] {
            let error = typed(&format!("--agent http://node {capture}")).unwrap_err();
            assert!(error.contains("cannot be used with"), "{capture}: {error}");
        }
        for needs in ["--token-file t", "--ca-file c"] {
            assert!(typed(needs).unwrap_err().contains("--agent"), "{needs}");
        }
    }

    #[test]
    fn windows_have_a_length() {
        for interval in ["0", "199ms", "2h"] {
            let error = typed(&format!("--interval {interval}")).unwrap_err();
            assert!(error.contains("must be from 200ms to 3600s"), "{error}");
        }
    }

    #[test]
    fn frames_are_written_a_line_each() {
        let config = typed("--format json").unwrap();
        let mut writer = Writer { config: &config, out: Vec::new(), findings: None, written: None };
        let frame = Frame::of(&sample::rich());
        writer.write(&frame).unwrap();
        writer.write(&frame).unwrap();
        let text = String::from_utf8(writer.out).unwrap();
        let read: Vec<Frame> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, [frame.clone(), frame]);
    }
}
