//! `tol completions` and `tol man`: what shells and manuals know of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::{DONE, Failure};
use super::output;

/// `tol completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to print a script for, such as `tol completions bash > /etc/bash_completion.d/tol`
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `tol man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write a page for tol and each of its subcommands into this folder instead of printing the first
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Prints a completion script.
pub fn completions(arguments: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "tol", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(DONE)
}

/// Prints the manual page, or writes all of them.
pub fn man(arguments: &ManArgs) -> Result<u8, Failure> {
    let Some(folder) = &arguments.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        output::print(&String::from_utf8_lossy(&page));
        return Ok(DONE);
    };
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        let mut page = Vec::new();
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        clap_mangen::Man::new(command.clone()).render(&mut page)?;
        output::write_file(&folder.join(format!("{name}.1")), &page)?;
        open.extend(command.get_subcommands().filter(|child| child.get_name() != "help").cloned());
    }
    println!("{}", folder.display());
    Ok(DONE)
}
