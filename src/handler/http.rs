//! The `http` action.

use crate::dispatch::StopSignal;
use crate::handler::context::WorkerContext;
use crate::task::{HttpRequest, Outcome};
/// A client.
pub struct Client;
/// Sends.
pub async fn send(_request: &HttpRequest, _context: &WorkerContext, _stop: &mut StopSignal) -> Outcome {
    Outcome::Stopped
}
