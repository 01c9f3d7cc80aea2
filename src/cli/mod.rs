//! One file per subcommand; wires everything.
