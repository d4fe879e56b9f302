//! Frames of an agent: the last minutes at once, then each as it comes.
//!
//! Needs an [`Agent`]; yields [`Update`]s from a thread of its own. An agent that goes away is told, and asked again until
//! it is back; what was shown meanwhile is caught up with. See docs/agent-page.md for what the agent sends.

use super::{
    Feed, Update,
    http::{self, Agent, ClientError},
    sse::{Event, Parser},
};
use crate::{live::Frame, recommend::Advice};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::{
    sync::mpsc::{self, Sender},
    time::Duration,
};
use tokio::{runtime, sync::oneshot, time};

/// What was, without tables: graphs have no use for them.
const FRAMES: &str = "/api/frames?brief";
const LIVE: &str = "/api/live";

/// Before an agent that was lost is asked again: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// A stream that is silent for so many windows, and so much longer, is dead.
const SILENT_WINDOWS: u32 = 3;
const SILENT: Duration = Duration::from_secs(20);

/// A stream, and what was before it.
struct Joined {
    body: Incoming,
    before: Vec<Frame>,
}

/// Why a stream is read no longer.
enum Over {
    /// Nobody listens.
    Unheard,
    /// The agent.
    Lost(ClientError),
}

impl From<ClientError> for Over {
    fn from(error: ClientError) -> Self {
        Self::Lost(error)
    }
}

/// Joins the agent's stream, so that a mistake is known at once; then follows what comes.
///
/// # Errors
/// When the agent does not answer, or refuses.
pub fn follow(agent: Agent) -> Result<Feed, ClientError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Thread)?;
    let joined = runtime.block_on(join(&agent))?;
    let (updates, feed) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                // Also when the other end is gone.
                _ = stopped => {}
                () = live(&agent, joined, &updates) => {}
            }
        });
        Ok(())
    };
    let thread = std::thread::Builder::new().name("agent".to_owned()).spawn(work);
    Ok(Feed::new(feed, move || drop(stop), thread.map_err(ClientError::Thread)?))
}

/// The stream first, so that nothing is missed between the two.
async fn join(agent: &Agent) -> Result<Joined, ClientError> {
    let body = agent.stream(LIVE).await?;
    Ok(Joined { body, before: agent.json(FRAMES).await? })
}

/// Until nobody listens.
async fn live(agent: &Agent, joined: Joined, updates: &Sender<Update>) {
    let mut wait = AGAIN[0];
    let mut joined = Ok(joined);
    loop {
        let mut reader = Reader { updates, parser: Parser::default(), window: Duration::ZERO, before: None };
        let over = match joined {
            Ok(Joined { body, before }) => {
                wait = AGAIN[0];
                reader.before = Some(before);
                reader.read(body).await
            }
            Err(error) => Over::Lost(error),
        };
        let Over::Lost(why) = over else { return };
        if updates.send(Update::Lost(why.to_string())).is_err() {
            return;
        }
        time::sleep(reader.parser.retry().unwrap_or(wait).clamp(wait, AGAIN[1])).await;
        wait = (wait * 2).min(AGAIN[1]);
        joined = join(agent).await;
    }
}

/// Reads one stream.
struct Reader<'a> {
    updates: &'a Sender<Update>,
    parser: Parser,
    window: Duration,
    /// What was before the first frame, until that is there.
    before: Option<Vec<Frame>>,
}

impl Reader<'_> {
    async fn read(&mut self, mut body: Incoming) -> Over {
        loop {
            if let Err(over) = self.piece(&mut body).await {
                return over;
            }
        }
    }

    async fn piece(&mut self, body: &mut Incoming) -> Result<(), Over> {
        let patience = self.window.saturating_mul(SILENT_WINDOWS).saturating_add(SILENT);
        let piece = http::within(patience, "the next frame", http::piece(body)).await?;
        let piece = piece.map_err(ClientError::Http)?.ok_or(ClientError::Ended)?;
        let events = self.parser.feed(&piece).map_err(|error| ClientError::Stream(error.to_string()))?;
        for event in events {
            if let Some(update) = self.update(&event)? {
                self.updates.send(update).map_err(|_| Over::Unheard)?;
            }
        }
        Ok(())
    }

    /// What an event says; of kinds that are not known, or of no use here, nothing.
    fn update(&mut self, event: &Event) -> Result<Option<Update>, ClientError> {
        match event.kind.as_str() {
            "" | "message" | "frame" => {
                let frame: Frame = parsed(&event.data)?;
                self.window = Duration::from_millis(frame.window_ms);
                Ok(Some(match self.before.take() {
                    // It has the last one's tables, too.
                    Some(mut frames) => {
                        frames.retain(|before| before.at_unix_ms < frame.at_unix_ms);
                        frames.push(frame);
                        Update::History(frames)
                    }
                    None => Update::Frame(Box::new(frame)),
                }))
            }
            "findings" => Ok(Some(Update::Findings(parsed::<Advice>(&event.data)?.findings))),
            "end" => Err(ClientError::Ended),
            _ => Ok(None),
        }
    }
}

fn parsed<T: DeserializeOwned>(data: &str) -> Result<T, ClientError> {
    serde_json::from_str(data).map_err(|error| ClientError::Json { path: LIVE, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recommend, snapshot::sample};

    fn event(kind: &str, data: &impl serde::Serialize) -> Event {
        Event { kind: kind.to_owned(), data: serde_json::to_string(data).unwrap() }
    }

    fn frame(at_unix_ms: u64) -> Frame {
        Frame { at_unix_ms, ..Frame::of(&sample::rich()) }
    }

    #[test]
    fn the_first_frame_ends_what_was_before() {
        let (updates, _feed) = mpsc::channel();
        let before = Some(vec![frame(1), frame(2), frame(3)]);
        let mut reader =
            Reader { updates: &updates, parser: Parser::default(), window: Duration::ZERO, before };
        let first = reader.update(&event("frame", &frame(3))).unwrap();
        let Some(Update::History(frames)) = first else { panic!("{first:?}") };
        assert_eq!(frames.iter().map(|f| f.at_unix_ms).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(reader.window, Duration::from_secs(30));
        let second = reader.update(&event("", &frame(4))).unwrap();
        assert!(matches!(second, Some(Update::Frame(frame)) if frame.at_unix_ms == 4));
    }

    #[test]
    fn events_are_findings_or_the_end_or_for_others() {
        let (updates, _feed) = mpsc::channel();
        let mut reader =
            Reader { updates: &updates, parser: Parser::default(), window: Duration::ZERO, before: None };
        let advice = Advice::new("node", recommend::unknown("why"));
        let said = reader.update(&event("findings", &advice)).unwrap();
        assert!(matches!(said, Some(Update::Findings(findings)) if findings == advice.findings));
        assert!(matches!(reader.update(&event("end", &"bye")), Err(ClientError::Ended)));
        assert!(matches!(reader.update(&event("status", &1)), Ok(None)));
        let error = reader.update(&event("frame", &"no frame")).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
    }
}
