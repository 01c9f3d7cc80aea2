//! What is said of each mistake, and where.
