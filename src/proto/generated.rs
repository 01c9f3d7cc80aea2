//! What the build makes of `proto/`.

/// The messages and services of version 1.
pub mod v1 {
    tonic::include_proto!("tol.v1");
}

/// The compiled descriptors of all files of `proto/`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tol.v1.fds"));

/// The version of the protocol that this program speaks.
pub const VERSION: &str = "1.0.0";

/// The largest message on every hop, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 10 * 1024 * 1024;
