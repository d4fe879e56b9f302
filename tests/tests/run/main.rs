//! The program as a whole: what it does with its options, its files, and a machine that is not as it should be.

mod budget;
mod cli;
mod doctor;
mod filter;
mod ifaces;
mod module_types;
mod recording;
mod ring;
mod without_btf;
