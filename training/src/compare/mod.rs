//! Several configurations, several seeds, one honest table.
//!
//! ```text
//! arm.rs         what is compared with what, and what differs
//! result.rs      rows of runs and arms
//! statistics.rs  means, spreads, intervals
//! tables.rs      compare.json, compare.csv, compare.md
//! live.rs        the run under way, for the report
//! page.rs        the report
//! charts.rs      its charts
//! runs.rs        trains the runs, one after the other
//! ```

mod arm;
mod charts;
mod live;
mod page;
mod result;
mod runs;
mod statistics;
mod tables;

pub use arm::{Arm, Contrast, Difference, Pairing};
pub use live::Live;
pub use result::{Comparison, Row, SummaryRow};
pub use runs::compare;
pub use statistics::summarise;
