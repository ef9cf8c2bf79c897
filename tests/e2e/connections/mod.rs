//! Every way to the two servers: TLS with right and wrong certificates, ways to log in, several hosts, sockets.

mod postgres;
mod search;
