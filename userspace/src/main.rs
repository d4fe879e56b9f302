//! The `nettrace` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    nettrace::cli::main()
}
