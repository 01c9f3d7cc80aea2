//! Receive, handle, reply.
