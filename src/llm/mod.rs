//! Providers on the wire.
