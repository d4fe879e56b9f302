//! The page of an agent, its data and its metrics over HTTP, to those who may see them and within bounds.
//!
//! Needs a [`WebConfig`] and [`Sources`]: the agent's [`Hub`], and what writes metrics and reads the history. Yields a
//! [`Serving`] that listens already. At the default it listens at loopback; elsewhere it wants a bearer token. Every
//! bound that is reached is a [`Refusal`] and counted. See `docs/agent-page.md`.

mod assets;
mod body;
mod config;
mod feed;
mod gate;
mod guard;
mod patience;
mod routes;
mod secrets;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use crate::agent::{Counts, Refusal};
pub use config::{WebConfig, WebConfigError};
pub use secrets::SecretError;

use crate::{agent::Hub, snapshot::Snapshot};
use bytes::Bytes;
use secrets::Secrets;
use server::Server;
use std::{error::Error, fmt, io, net::SocketAddr, ops::RangeInclusive, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};

/// Writes metrics for what a scraper accepts: their content type, and the text.
pub type MetricsSource = Arc<dyn Fn(Option<&str>) -> (String, Bytes) + Send + Sync>;
/// Reads what was kept of a time (Unix time, ms), merged; none when there is nothing of it.
pub type HistorySource =
    Arc<dyn Fn(RangeInclusive<u64>) -> Result<Option<Snapshot>, HistoryFailure> + Send + Sync>;
/// Why a history could not be read.
pub type HistoryFailure = Box<dyn Error + Send + Sync>;

/// What is served.
#[derive(Clone)]
pub struct Sources {
    /// What the agent knows.
    pub hub: Arc<Hub>,
    /// What `/metrics` is made with; without it that path is not there.
    pub metrics: Option<MetricsSource>,
    /// What `/api/history` is made with; without it that path is not there.
    pub history: Option<HistorySource>,
}

impl From<Arc<Hub>> for Sources {
    fn from(hub: Arc<Hub>) -> Self {
        Self { hub, metrics: None, history: None }
    }
}

/// The closures within have nothing to show.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hub, metrics, history } = self;
        f.debug_struct("Sources")
            .field("hub", hub)
            .field("metrics", &metrics.is_some())
            .field("history", &history.is_some())
            .finish()
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The configuration says what cannot be.
    #[error(transparent)]
    Config(#[from] WebConfigError),
    /// A token or a certificate cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Somebody listens there.
    #[error("cannot listen at {0}: another process does (ss -ltnp 'sport = :{port}' names it)", port = .0.port())]
    InUse(SocketAddr),
    /// Ports below 1024 are for who may have them.
    #[error("cannot listen at {0}: no permission, a port below 1024 needs CAP_NET_BIND_SERVICE")]
    Permission(SocketAddr),
    /// Not an address of this machine.
    #[error("cannot listen at {0}: this machine, or this network namespace, has no such address")]
    NoAddress(SocketAddr),
    /// It failed otherwise.
    #[error("cannot listen at {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

impl WebError {
    fn bind(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::PermissionDenied => Self::Permission(address),
            io::ErrorKind::AddrNotAvailable => Self::NoAddress(address),
            _ => Self::Bind { address, error },
        }
    }
}

/// A server that listens.
pub struct Serving {
    address: SocketAddr,
    secrets: Arc<Secrets>,
    task: JoinHandle<()>,
}

/// Without what is secret.
impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Serving {
    /// Where it listens: with the port that the kernel chose when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads token and certificate anew, for connections and requests from now on.
    ///
    /// # Errors
    /// Why they cannot be used; those read before stay in force.
    pub fn reload(&self) -> Result<(), WebError> {
        Ok(self.secrets.reload()?)
    }

    /// Waits until it ended: some seconds at most after it was told to.
    pub async fn ended(self) {
        // A task that panicked has ended, too.
        let _ = self.task.await;
    }
}

/// Listens, and serves until `shutdown` comes about.
///
/// # Errors
/// When the configuration, a secret or the address cannot be used.
pub async fn serve(
    config: WebConfig,
    sources: impl Into<Sources>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Serving, WebError> {
    config.check()?;
    let secrets = Arc::new(Secrets::read(&config)?);
    let listener = server::bind(config.listen)?;
    let address = listener.local_addr().map_err(|error| WebError::bind(config.listen, error))?;
    let (tell, end) = watch::channel(false);
    let sources = sources.into();
    // The agent's, so that they go on when one server follows another.
    let counts = sources.hub.counts();
    let site = routes::Site::new(&config, sources, secrets.clone(), end.clone());
    let server = Server::new(config, site, counts);
    tokio::spawn(async move {
        shutdown.await;
        tell.send_replace(true);
    });
    let task = tokio::spawn(server.run(listener, end));
    Ok(Serving { address, secrets, task })
}

/// Waits until the server is told to end, or whoever would tell it is gone.
async fn told(end: &mut watch::Receiver<bool>) {
    drop(end.wait_for(|ended| *ended).await);
}
