//! nettrace's user side, in the order the data takes: `load` -> `attach` -> `ring` -> `decode` -> `aggregate` ->
//! `snapshot`; then what lives off a snapshot: `recommend`, `report`.

pub mod aggregate;
pub mod attach;
pub mod btf;
pub mod capture;
pub mod change;
pub mod cli;
mod cni;
pub mod config;
pub mod conntrack;
mod deadline;
pub mod decode;
pub mod doctor;
mod ethtool;
mod files;
pub mod filter;
pub mod iface;
pub mod immediates;
pub mod kernel_state;
pub mod lab;
pub mod load;
mod modules;
mod netlink;
pub mod node;
pub mod offsets;
pub mod path_mtu;
pub mod preflight;
pub mod probes;
pub mod recommend;
pub mod recording;
pub mod report;
pub mod ring;
mod rtnl;
pub mod snapshot;
pub mod symbols;
pub mod tune;
