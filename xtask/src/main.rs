//! Tasks of the repository, run as `cargo xtask COMMAND`.
//!
//! A command is one module with an `Args` and a `run`, and one variant of [`Command`].
#![expect(clippy::print_stdout, reason = "a task runner reports on stdout")]

mod build_ebpf;
mod demo;
mod dist;
mod image;
mod kind;
mod lint;
mod object;
mod packages;
mod privilege;
mod process;
mod release;
mod setup;
mod sources;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Lint(lint::Args),
    Test(test::Args),
    Demo(demo::Args),
    Vm(vm::Args),
    Dist(dist::Args),
    Image(image::Args),
    Kind(kind::Args),
}

impl Command {
    fn run(self) -> Result<()> {
        match self {
            Self::Setup(args) => setup::run(&args),
            Self::BuildEbpf(args) => build_ebpf::run(&args),
            Self::Lint(args) => lint::run(&args),
            Self::Test(args) => test::run(&args),
            Self::Demo(args) => demo::run(&args),
            Self::Vm(args) => vm::run(&args),
            Self::Dist(args) => dist::run(&args),
            Self::Image(args) => image::run(&args),
            Self::Kind(args) => kind::run(&args),
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
