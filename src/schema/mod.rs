//! A tree held against `schemas/*.json`.
