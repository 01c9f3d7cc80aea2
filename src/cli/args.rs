//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Plan, execute and synthesize: pipelines from YAML, run durably.
#[derive(Debug, Parser)]
#[command(name = "tol", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done or succeeded, 1 failed, 2 invalid input and nothing started, 3 run timed out, \
                        4 budget exhausted, 5 waiting for a person, 130 ended by a signal."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check pipelines, catalogues and settings, and run nothing
    Validate(super::validate::ValidateArgs),
    /// Run a pipeline to its end
    Run(RunArgs),
    /// Take up a run where its process left it
    Resume(ResumeArgs),
    /// Serve a folder of pipelines: start, drive and watch runs over the network
    Serve(super::serve::ServeArgs),
    /// Answer an approval, or say what became of an unknown step
    Approve(ApproveArgs),
    /// List, show and steer runs
    Runs(RunsArgs),
    /// Draw which step waits for which, of a file or of a run
    Graph(super::graph::GraphArgs),
    /// Say which steps differ between two versions of a pipeline
    Diff(super::diff::DiffArgs),
    /// Run test files with made-up outcomes; starts nothing
    Test(super::test::TestArgs),
    /// Write a small project that works
    Init(super::init::InitArgs),
    /// List and show agents
    Agents(super::agents::AgentsArgs),
    /// Look for what keeps tol from working here
    Doctor(super::doctor::DoctorArgs),
    /// Do the tasks of schedulers on other machines
    Worker(super::worker::WorkerArgs),
    /// Print the JSON Schema of a kind of file
    Schema(super::schema::SchemaArgs),
    /// Print a completion script for a shell
    Completions(super::completions::CompletionsArgs),
    /// Print the manual pages
    Man(super::completions::ManArgs),
}

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunFormat {
    /// A live tree; the default in a terminal
    Tree,
    /// One line per change; the default elsewhere
    Plain,
    /// JSON Lines, the summary last
    Json,
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    #[default]
    Text,
    Json,
}

/// What a degraded run counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Exit with 1 if the run is degraded
    Degraded,
}

/// How a run is watched, for every command that drives one.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// How progress is shown [default: tree in a terminal, else plain]
    #[arg(long, value_enum)]
    pub format: Option<RunFormat>,
    /// Do not show what scripts print
    #[arg(long, short)]
    pub quiet: bool,
    /// Count this outcome as a failure, too
    #[arg(long, value_enum)]
    pub fail_on: Option<FailOn>,
    /// Leave with exit code 5 when only a person can move the run on
    #[arg(long)]
    pub detach_on_wait: bool,
    /// Where steps are done
    #[arg(long, env = "TOL_DISPATCH", value_enum, default_value_t, value_name = "HOW")]
    pub dispatch: super::elsewhere::DispatchMode,
}

/// Where state is kept.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// The folder of the journal [default: .tol in the project's root]
    #[arg(long, env = "TOL_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Where the runs are, if not on this machine.
#[derive(Clone, Debug, Args)]
pub struct RemoteArgs {
    /// The server that has the runs: HOST:PORT, or https://HOST:PORT; TOL_TOKEN holds its token
    #[arg(long, env = "TOL_SERVER", value_name = "ADDRESS")]
    pub server: Option<String>,
    /// The certificate of the CA that vouches for the server, in PEM [default: the system's]
    #[arg(long, env = "TOL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The caller's own certificate, in PEM, for a server that wants one
    #[arg(long, env = "TOL_TLS_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, env = "TOL_TLS_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

/// `tol run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The pipeline file; a run's id with --resume; a pipeline's name or path with --server
    pub file: PathBuf,
    /// A parameter; its text is read by the parameter's type
    #[arg(long = "param", short = 'p', value_name = "NAME=VALUE")]
    pub params: Vec<String>,
    /// A JSON or YAML file of parameters; --param wins
    #[arg(long, value_name = "FILE")]
    pub params_file: Option<PathBuf>,
    /// The profile to lay over the file
    #[arg(long, env = "TOL_ENV", value_name = "PROFILE")]
    pub env: Option<String>,
    /// Print what would run, in order, and start nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take FILE as the id of a run to resume
    #[arg(long, conflicts_with_all = ["params", "params_file", "dry_run"])]
    pub resume: bool,
    /// The most actions at once; wins over the file
    #[arg(long, env = "TOL_MAX_PARALLEL", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_parallel: Option<u32>,
    /// Run again whenever a file of the pipeline changes, until Ctrl-C
    #[arg(long = "watch", conflicts_with_all = ["dry_run", "resume", "server", "detach"])]
    pub again: bool,
    /// Start the run on the server, print its id, and do not wait for it
    #[arg(long, requires = "server")]
    pub detach: bool,
    /// Two submissions with the same key start one run
    #[arg(long, value_name = "KEY", requires = "server")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol resume`.
#[derive(Clone, Debug, Args)]
pub struct ResumeArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol approve`.
#[derive(Clone, Debug, Args)]
pub struct ApproveArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    /// The step that waits
    pub step: String,
    /// Say no
    #[arg(long, conflicts_with = "settle")]
    pub reject: bool,
    /// Words to keep with the decision
    #[arg(long)]
    pub comment: Option<String>,
    /// Who decides [default: the user's name]
    #[arg(long)]
    pub by: Option<String>,
    /// What became of an unknown step
    #[arg(long = "as", value_enum, value_name = "OUTCOME")]
    pub settle: Option<Settle>,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// What an operator says of an unknown step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Settle {
    /// It was done
    Succeeded,
    /// It was not done, and is not to be
    Failed,
    /// It was not done: try again
    Retry,
}

/// `tol runs`.
#[derive(Clone, Debug, Args)]
pub struct RunsArgs {
    #[command(subcommand)]
    pub command: RunsCommand,
}

/// The subcommands of `tol runs`.
#[derive(Clone, Debug, Subcommand)]
pub enum RunsCommand {
    /// The runs of this project, newest first
    List(ListArgs),
    /// How a run and its steps stand
    Show(ShowArgs),
    /// Follow a run that something else drives, until it ends
    Watch(FollowArgs),
    /// What a run's scripts printed
    Logs(LogsArgs),
    /// End a run
    Cancel(RunRef),
    /// Let running steps finish and start no more
    Pause(RunRef),
    /// Lift a pause
    Resume(RunRef),
    /// Run again, in whole or in part, as a new run
    Rerun(RerunArgs),
    /// Remove old runs that have ended
    Prune(PruneArgs),
}

/// A run by its id.
#[derive(Clone, Debug, Args)]
pub struct RunRef {
    /// The run's id, or the beginning of it
    pub run: String,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol runs list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only runs of this status
    #[arg(long)]
    pub status: Option<String>,
    /// Only runs of this pipeline
    #[arg(long)]
    pub pipeline: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    pub limit: u64,
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol runs show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    /// Every event of the run, as the journal has it
    #[arg(long)]
    pub history: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol runs watch`.
#[derive(Clone, Debug, Args)]
pub struct FollowArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    /// From this change on; the first is 1
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub from: u64,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol runs logs`.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    /// Only this step
    pub step: Option<String>,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol runs rerun`.
#[derive(Clone, Debug, Args)]
pub struct RerunArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    /// This step and all that depends on it; the rest keeps its outputs
    #[arg(long, value_name = "STEP", conflicts_with = "failed")]
    pub from: Option<String>,
    /// What failed, tolerated or not, and all that depends on it
    #[arg(long)]
    pub failed: bool,
    /// On the file as it is now, instead of the definition that the run had
    #[arg(long)]
    pub latest: bool,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// `tol runs prune`.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Runs that ended longer ago, such as 30d [default: `retention.days` of the settings]
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<String>,
    /// Keep so many of the newest [default: `retention.runs` of the settings]
    #[arg(long, value_name = "N")]
    pub keep: Option<u64>,
    /// Only say which
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub state: StateArgs,
}
