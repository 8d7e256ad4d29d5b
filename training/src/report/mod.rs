//! HTML pages: `report.html` with the results of a run or a comparison so far, and the pages of single
//! commands.
//!
//! Each is one file that loads nothing and needs no script; where scripts are allowed, tables of
//! classes can be sorted. `report.html` is rewritten after every epoch or run, and every [`INTERVAL`] in
//! long ones. The pages know folders only as links; the caller writes them.
//!
//! ```text
//! format.rs    numbers in human-readable form
//! page.rs      markup, tables, sections
//! series.rs    what a chart shows
//! scale.rs     axes
//! drawing.rs   series and axes as SVG
//! chart.rs     a drawing with its words and numbers
//! frame.rs     what the pages share
//! heat.rs      matrices as heat maps
//! bars.rs      shares as stacked bars
//! picture.rs   pictures inside a page
//! findings.rs  what an evaluation found: mistakes.rs, confusion.rs, classes.rs, reliability.rs
//! train.rs     the page of a run
//! eval.rs      the page of `dbb eval`
//! branches.rs  the page of `dbb inspect`
//! lr_range.rs  the page of `dbb lr-find`
//! ```

mod bars;
mod branches;
pub(crate) mod chart;
mod classes;
mod confusion;
mod drawing;
mod eval;
mod findings;
pub(crate) mod format;
pub(crate) mod frame;
mod heat;
mod lr_range;
mod mistakes;
pub(crate) mod page;
mod picture;
mod reliability;
pub(crate) mod scale;
pub(crate) mod series;
#[cfg(test)]
pub(crate) mod testing;
mod train;

pub use branches::branches_page;
pub use eval::{Evaluated, eval_page};
pub use findings::Findings;
pub use frame::State;
pub use lr_range::{LrRanges, lr_range_page};
pub use train::{Run, train_page};

use std::time::Duration;

/// How often the page of a run is rewritten within an epoch.
pub const INTERVAL: Duration = Duration::from_secs(30);
