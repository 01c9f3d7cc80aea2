//! Where workers on other machines take their work over gRPC.
//!
//! One port for all services of a scheduler. The gateway knows connections, tokens, certificates and messages; what is
//! handed to whom is the hub's business, and the service that starts runs is put in by its owner.

mod access;
mod artifacts;
mod config;
mod identity;
mod incoming;
mod outgoing;
mod refusal;
mod serve;
mod session;

pub use access::Caller;
pub use config::{GatewayConfig, GatewayError, TlsFiles, Tokens};
pub use identity::Identities;
pub use refusal::{Refusal, too_large};
pub use serve::{Gateway, Readiness};
