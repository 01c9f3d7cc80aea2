//! Printing that never panics: a reader that has gone (`tol runs list | head -1`) is no fault of the program.

/// A line on standard output.
macro_rules! out {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($words)*);
    }};
}

/// Text on standard output, without a newline of its own.
macro_rules! out_text {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let mut stdout = std::io::stdout().lock();
        let _ = write!(stdout, $($words)*);
        let _ = stdout.flush();
    }};
}

/// A line on standard error.
macro_rules! err {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($words)*);
    }};
}

/// Text on standard error, without a newline of its own.
macro_rules! err_text {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr().lock(), $($words)*);
    }};
}

pub(crate) use {err, err_text, out, out_text};
