//! Several schedulers over one fenced store, several workers, and a transport that loses, repeats, delays and reorders,
//! all in virtual time. `TOL_SEEDS=N` runs that many clusters, `TOL_SEED=n` repeats one.

mod cluster;
mod fault;
mod mishap;
mod node;
mod seeds;
mod store;
mod truth;
mod wire;
mod worker;
