//! What runs on and on: the live page in the terminal.

mod stream;
mod top;
