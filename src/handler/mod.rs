//! Does one task; one file per action.
