//! The command line: one file per subcommand, each wiring the rooms for one purpose.

mod approve;
mod args;
mod context;
mod drive;
mod dry_run;
mod exit;
mod git;
mod params;
mod progress;
mod resume;
mod run;
mod runs;
mod scan;
mod signals;
mod validate;

pub use args::{Cli, Command};

use clap::Parser;

use exit::Failure;

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Resume(arguments) => resume::run(&arguments),
        Command::Approve(arguments) => approve::run(&arguments),
        Command::Runs(arguments) => runs::run(arguments.command),
    };
    let code = match result {
        Ok(code) => code,
        Err(Failure { message, code }) => {
            eprintln!("error: {}", message.trim_end());
            code
        }
    };
    std::process::ExitCode::from(code)
}
