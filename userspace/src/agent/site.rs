//! The agent's page, data and metrics over HTTP, on threads of their own.

use super::Hub;
use crate::{
    export::Metrics,
    history::{self, Range},
    web::{self, HistorySource, MetricsSource, Serving, Sources, WebConfig, WebError},
};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{runtime::Runtime, sync::oneshot};

/// How long answers that are under way may take when it ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// It cannot be served.
    #[error(transparent)]
    Web(#[from] WebError),
    /// No threads for it.
    #[error("cannot start the threads of the page: {0}")]
    Runtime(#[from] io::Error),
}

/// The site.
#[derive(Debug)]
pub struct Site {
    runtime: Runtime,
    sources: Sources,
    config: WebConfig,
    serving: Option<(Serving, oneshot::Sender<()>)>,
}

impl Site {
    /// Listens, where it is configured to; `history` is the directory that is kept, if any.
    ///
    /// # Errors
    /// When it cannot be served there.
    pub fn start(
        config: &WebConfig,
        hub: Arc<Hub>,
        metrics: Arc<Mutex<Metrics>>,
        history: Option<PathBuf>,
    ) -> Result<Self, SiteError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("web")
            .enable_all()
            .build()?;
        let sources = Sources { hub, metrics: Some(of_metrics(metrics)), history: history.map(of_history) };
        let mut site = Self { runtime, sources, config: config.clone(), serving: None };
        site.serve()?;
        Ok(site)
    }

    /// Where it listens, if it does.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|(serving, _)| serving.address())
    }

    /// Takes another configuration; token and certificate are read anew either way.
    ///
    /// # Errors
    /// When it cannot be served so; it is as it was then.
    pub fn follow(&mut self, config: &WebConfig) -> Result<(), SiteError> {
        if *config == self.config {
            if let Some((serving, _)) = &self.serving {
                serving.reload()?;
            }
            return Ok(());
        }
        self.end();
        let old = std::mem::replace(&mut self.config, config.clone());
        self.serve().or_else(|error| {
            self.config = old;
            self.serve()?;
            Err(error)
        })
    }

    fn serve(&mut self) -> Result<(), SiteError> {
        if !self.config.enabled {
            return Ok(());
        }
        let (end, ended) = oneshot::channel();
        let over = async {
            // One that is dropped ends it, too.
            let _ = ended.await;
        };
        let serving = self.runtime.block_on(web::serve(self.config.clone(), self.sources.clone(), over))?;
        tracing::info!("listening at {}", serving.address());
        self.serving = Some((serving, end));
        Ok(())
    }

    fn end(&mut self) {
        let Some((serving, end)) = self.serving.take() else { return };
        // One that has ended by itself hears nothing.
        let _ = end.send(());
        let waited = async { tokio::time::timeout(PATIENCE, serving.ended()).await };
        if self.runtime.block_on(waited).is_err() {
            tracing::warn!("answers that were under way were given up");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end();
    }
}

fn of_metrics(metrics: Arc<Mutex<Metrics>>) -> MetricsSource {
    Arc::new(move |accept| {
        let encoded = metrics.lock().unwrap_or_else(PoisonError::into_inner).encode(accept);
        (encoded.content_type.to_owned(), encoded.body)
    })
}

fn of_history(dir: PathBuf) -> HistorySource {
    Arc::new(move |window| {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        let range = Range { from_unix_ns: ns(*window.start()), to_unix_ns: ns(*window.end()) };
        Ok(history::read(&dir, range)?.snapshot)
    })
}
