//! HTML pages: `report.html` with the results of a run or a comparison so far, and the pages of single
//! commands.
//!
//! Each is one file that loads nothing and needs no script. `report.html` is rewritten after every
//! epoch or run, and every [`INTERVAL`] in long ones. The pages know folders only as links; the caller writes them.
//!
//! ```text
//! format.rs    numbers in human-readable form
//! page.rs      markup, tables, sections
//! series.rs    what a chart shows
//! scale.rs     axes
//! drawing.rs   series and axes as SVG
//! chart.rs     a drawing with its words and numbers
//! steps.rs     the training loss by step
//! frame.rs     what the pages share
//! heat.rs      matrices as heat maps
//! bars.rs      shares as stacked bars
//! train.rs     the page of a run
//! branches.rs  the page of `dbb inspect`
//! lr_range.rs  the page of `dbb lr-find`
//! ```

mod bars;
mod branches;
pub(crate) mod chart;
mod drawing;
pub(crate) mod format;
pub(crate) mod frame;
mod heat;
mod lr_range;
pub(crate) mod page;
pub(crate) mod scale;
pub(crate) mod series;
mod steps;
#[cfg(test)]
pub(crate) mod testing;
mod train;

pub use branches::branches_page;
pub use frame::State;
pub use lr_range::{LrRanges, lr_range_page};
pub use steps::Steps;
pub use train::{Run, train_page};

use std::time::Duration;

/// How often the page of a run is rewritten within an epoch.
pub const INTERVAL: Duration = Duration::from_secs(30);
