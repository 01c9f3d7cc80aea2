//! The command line: one file per subcommand, each wiring the rooms for one purpose.

mod agents;
mod approve;
mod args;
mod artifacts;
mod completions;
mod context;
mod diff;
mod diff_report;
mod diff_trees;
mod doctor;
mod doctor_checks;
mod doctor_places;
mod doctor_variables;
mod drive;
mod dry_run;
mod elsewhere;
mod exit;
mod follow;
mod graph;
mod init;
mod output;
mod params;
mod print;
mod progress;
mod remote;
mod rerun;
mod resume;
mod retention;
mod run;
mod runs;
mod scan;
mod schema;
mod serve;
mod signals;
mod test;
mod test_report;
mod validate;
mod worker;
mod worker_kafka;

pub use args::{Cli, Command};

use crate::cli::print::err;
use clap::Parser;

use exit::Failure;

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Resume(arguments) => resume::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Approve(arguments) => approve::run(&arguments),
        Command::Runs(arguments) => runs::run(arguments.command),
        Command::Graph(arguments) => graph::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Agents(arguments) => agents::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => completions::man(&arguments),
    };
    let code = match result {
        Ok(code) => code,
        Err(Failure { message, code }) => {
            err!("error: {}", message.trim_end());
            code
        }
    };
    std::process::ExitCode::from(code)
}
