//! nettrace's user side, in the order the data takes: `load` -> `attach` -> `ring` -> `decode` -> `aggregate` ->
//! `snapshot`; then what lives off a snapshot: `report`.

pub mod cli;
pub mod config;
pub mod filter;
pub mod preflight;
pub mod recording;
pub mod snapshot;
