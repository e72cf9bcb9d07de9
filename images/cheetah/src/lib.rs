//! The static HTTP server.
