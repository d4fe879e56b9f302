//! What a server does for a client at most, whatever it is asked for.

use crate::load::{Kind, Load, Pace, Profile};
use std::time::Duration;

/// Bounds of one experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// From its start to its end.
    pub longest: Duration,
    /// Connections of all parts together.
    pub connections: u32,
    /// Bytes of one request or response.
    pub message_bytes: u32,
    /// Datagrams a second of all floods together.
    pub flood_per_second: f64,
}

impl Default for Limits {
    /// An hour, 512 connections, 4 MiB, a million datagrams a second.
    fn default() -> Self {
        Self {
            longest: Duration::from_secs(3600),
            connections: 512,
            message_bytes: 4 << 20,
            flood_per_second: 1e6,
        }
    }
}

impl Limits {
    /// Whether a profile is within them.
    ///
    /// # Errors
    /// What is not, as a sentence for the client.
    pub(super) fn check(&self, profile: &Profile) -> Result<(), String> {
        profile.check().map_err(|error| error.to_string())?;
        if profile.longest() > self.longest {
            return Err(format!(
                "it may take {:?}, and at most {:?} is allowed",
                profile.longest(),
                self.longest
            ));
        }
        let threads = |load: &Load| u64::from(load.connections) + u64::from(load.server_threads);
        let connections: u64 = profile.parts.iter().map(threads).sum();
        if connections > self.connections.into() {
            let most = self.connections;
            return Err(format!("{connections} connections and threads, and at most {most} are allowed"));
        }
        let mut flood_per_second = 0.0;
        for load in &profile.parts {
            let bytes = load.request_bytes.max(load.response_bytes);
            if bytes > self.message_bytes {
                let most = self.message_bytes;
                return Err(format!("{}: {bytes} bytes, and at most {most} are allowed", load.name));
            }
            match (&load.kind, load.pace) {
                (Kind::UdpFlood, Pace::Closed) => {
                    return Err(format!("{}: a flood between nodes needs a rate", load.name));
                }
                (Kind::UdpFlood, Pace::Open { rate_per_second, .. }) => flood_per_second += rate_per_second,
                _ => {}
            }
        }
        if flood_per_second > self.flood_per_second {
            let most = self.flood_per_second;
            return Err(format!("{flood_per_second} datagrams a second, and at most {most} are allowed"));
        }
        Ok(())
    }
}
