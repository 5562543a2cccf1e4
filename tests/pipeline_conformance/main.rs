//! What a pipeline promises: the cases that a pipeline must pass, each plain and with a spill stage in the middle, and
//! the rules behind them. Never sleeps: what is waited for is a gate, a wake-up or tokio's paused clock.
#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wild.rs"]
mod wild;

mod cases;
mod kit;
mod rules;
