//! Why a message cannot be read, or cannot be sent.

/// A message that does not say what its form demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be read: {what}")]
pub struct Undecodable {
    pub what: String,
}

impl Undecodable {
    /// A message with a fault.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }

    /// A message without a part that it needs.
    pub fn missing(field: &str) -> Self {
        Self::new(format!("`{field}` is missing"))
    }
}

/// Why an envelope cannot be sent or taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is larger than any hop takes.
    #[error(
        "MESSAGE_TOO_LARGE: the message has {bytes} bytes, the limit is {limit}; give scheduler and workers one artifact store (DATABASE_URL or --artifact-dir), or make the payload smaller"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// Its bytes or a part of it cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// It follows another protocol.
    #[error("the message follows version `{version}` of the protocol, this program reads 1.x; update the older side")]
    Version { version: String },
    /// Its type is none of the eight.
    #[error("there is no message type `{name}`; its sender may be newer than this program")]
    UnknownType { name: String },
    /// Its type needs a part that it lacks.
    #[error("a message of type {kind} needs {part}")]
    Incomplete { kind: &'static str, part: &'static str },
    /// Neither of the two forms.
    #[error("the content type `{0}` is neither application/json nor application/x-protobuf")]
    ContentType(String),
}

impl EnvelopeError {
    /// The name that an error report carries and programs may rely on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "MESSAGE_TOO_LARGE",
            Self::UnknownType { .. } => "UNKNOWN_TYPE",
            Self::Undecodable(_) | Self::Version { .. } | Self::Incomplete { .. } | Self::ContentType(_) => {
                "UNDECODABLE"
            }
        }
    }
}
