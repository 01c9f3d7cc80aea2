//! A test hook: whoever opens a journal may be called around each commit, for instance to kill the process there.

/// Called by the writer's thread around every write transaction.
///
/// This is a hook for tests of the whole program: a caller that sees `TOL_FAULT=kill-before-commit:N` in its
/// environment hands in a hook that ends the process at the N-th commit. The journal itself reads no environment.
pub trait FaultHook: Send + Sync {
    /// All of the `n`-th transaction (from 1) is written, none of it durable.
    fn before_commit(&self, n: u64);
    /// The `n`-th transaction is durable; neither the high-water mark nor any caller knows it yet.
    fn after_commit(&self, n: u64);
}
