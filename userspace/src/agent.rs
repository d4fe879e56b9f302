//! The agent: a capture that runs for months. It closes a window every few seconds, and everything that it shows, keeps
//! and exports is made of windows.

mod advisor;
mod archive;
mod budget;
mod counts;
mod hub;
mod notify;
mod outlets;
mod recorder;
mod site;
mod status;
mod work;

pub(crate) use advisor::Advisor;
pub use budget::{BudgetConfig, Governor, STEPS, Step};
pub use counts::{Counts, Refusal, Totals};
pub use hub::{ChangeRow, Event, Hub};
pub use outlets::Outlets;
pub use site::{Site, SiteError};
pub use status::{Budget, FlightStatus, HistoryStatus, Status};
pub(crate) use work::NodeWatch;
pub(crate) use work::millis;
pub use work::{AgentError, Host, Work};
