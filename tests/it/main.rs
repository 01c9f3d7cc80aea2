//! The one integration binary: what can only be seen from outside, through the built `tol` and the files beside it.
//!
//! Tests of one module stand beside its code.

mod behaviour;
mod cli_extras;
mod clocks;
mod cluster;
mod crash;
mod damage;
mod docs;
mod doctor;
mod grpc;
mod kafka;
mod kafka_artifacts;
mod kafka_loss;
mod keyed;
mod kill;
mod licences;
#[path = "../support/postgres.rs"]
mod postgres;
mod python_workers;
mod schedulers;
mod schemas;
mod serve;
mod serve_access;
mod serving;
mod shipped;
mod simulate;
mod source;
mod state_table;
mod support;
mod sync;
mod tidy;
mod watched_lines;
mod wire;
