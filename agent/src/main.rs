mod backoff;
mod happy_eyeballs;
mod target;
mod config;

fn main() {}
