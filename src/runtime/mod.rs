//! The loop: journal, apply, perform.
