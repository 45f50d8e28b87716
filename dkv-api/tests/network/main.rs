//! The client over real sockets against a whole network in this process.

mod contact;
mod fake;
mod requests;
