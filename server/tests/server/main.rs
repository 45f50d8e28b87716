//! The server over real sockets, in this process and as a program.

mod command;
mod data_dir;
mod hostile;
mod joining;
mod nodes;
mod roles;
mod support;
