//! Sends tasks, receives outcomes.
