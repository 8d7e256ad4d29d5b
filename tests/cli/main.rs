//! The program `dbb` as a user calls it: every command with its JSON, its files and its exit
//! code, and every mistake with a message that names it.

mod bench;
#[path = "../support/calls.rs"]
mod calls;
mod commands_page;
mod compare;
mod config;
mod data;
mod ending;
mod eval;
mod export;
mod fine_tuning;
mod finite;
mod fold;
mod foreign;
mod ignored;
mod inspect;
mod int8;
mod lr_find;
mod output;
mod plan;
mod recalibrate;
mod results;
mod resume;
#[path = "../support/runs.rs"]
mod runs;
mod setup;
mod soak;
#[path = "../support/stored.rs"]
mod stored;
mod study;
mod summary;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod train;
mod training;
mod usage;
