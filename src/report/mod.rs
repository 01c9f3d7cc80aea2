//! Events to text, JSON lines, a summary.
