//! Completion scripts and manual pages, from the same definition as the parser.

use super::{Cli, CompletionShell};
use clap::CommandFactory as _;
use clap_complete::{Generator as _, Shell};
use clap_mangen::Man;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Writes a shell's completion script.
///
/// # Errors
/// When `out` does not take it.
pub fn completions(shell: CompletionShell, out: &mut dyn io::Write) -> io::Result<()> {
    let mut command = Cli::command();
    command.set_bin_name("nettrace");
    command.build();
    Shell::from(shell).try_generate(&command, out)
}

/// Writes the main manual page, nettrace(1).
///
/// # Errors
/// When `out` does not take it.
pub fn man_page(out: &mut dyn io::Write) -> io::Result<()> {
    Man::new(Cli::command().disable_help_subcommand(true)).render(out)
}

/// Writes all manual pages, nettrace(1) and one for each command that is not hidden, into a directory, which is
/// made when it is not there. Yields their paths.
///
/// # Errors
/// When the directory or a file cannot be written.
pub fn man_pages(out_dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(out_dir)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut commands = vec![command];
    let mut paths = Vec::new();
    // Commands of commands, too.
    while let Some(command) = commands.pop() {
        let shown = |c: &&clap::Command| !c.is_hide_set() && c.get_name() != "help";
        commands.extend(command.get_subcommands().filter(shown).cloned());
        paths.push(Man::new(command).generate_to(out_dir)?);
    }
    Ok(paths)
}
