//! Commands without a server.
