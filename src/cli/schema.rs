//! `tol schema`: prints or writes the published schemas.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::{DONE, Failure};
use super::output;
use crate::schema::{DocumentKind, schema_text};

/// `tol schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Of which kind of file [default: pipeline; all of them with --output]
    #[arg(value_enum)]
    pub kind: Option<SchemaKind>,
    /// Write KIND.schema.json into this folder instead of printing
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// The kinds of files that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// A pipeline
    Pipeline,
    /// agents.yaml
    Agents,
    /// duo-agent.config.yaml
    Settings,
    /// What a plan yields
    Blueprint,
    /// *.test.yaml
    Test,
    /// What a pipeline includes
    Include,
}

impl SchemaKind {
    fn document(self) -> DocumentKind {
        match self {
            Self::Pipeline => DocumentKind::Pipeline,
            Self::Agents => DocumentKind::Agents,
            Self::Settings => DocumentKind::Settings,
            Self::Blueprint => DocumentKind::Blueprint,
            Self::Test => DocumentKind::Test,
            Self::Include => DocumentKind::Include,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Agents => "agents",
            Self::Settings => "settings",
            Self::Blueprint => "blueprint",
            Self::Test => "test",
            Self::Include => "include",
        }
    }
}

/// Prints one schema, or writes some.
pub fn run(arguments: &SchemaArgs) -> Result<u8, Failure> {
    let Some(folder) = &arguments.output else {
        output::print(schema_text(arguments.kind.unwrap_or(SchemaKind::Pipeline).document()));
        return Ok(DONE);
    };
    let kinds = arguments.kind.map_or_else(|| SchemaKind::value_variants().to_vec(), |kind| vec![kind]);
    for kind in kinds {
        let file = folder.join(format!("{}.schema.json", kind.name()));
        output::write_file(&file, schema_text(kind.document()).as_bytes())?;
        println!("{}", file.display());
    }
    Ok(DONE)
}
