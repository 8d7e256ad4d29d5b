//! Several configurations, several seeds, one honest table.
//!
//! ```text
//! plan.rs        arms, seeds, and which arm is compared with which
//! study.rs       the plan of a study file
//! record.rs      plan.json: the plan as it began, for a comparison that is started again
//! timing.rs      arms of equal training time
//! contrast.rs    what differs between two arms, and how they can be compared
//! check.rs       the checks before the first run
//! planned.rs     a run of a plan, and its result once it is finished
//! runs.rs        has the runs trained
//! workers.rs     the processes of the runs, side by side
//! worker.rs      the run of such a process
//! result.rs      rows of runs, arms and comparisons
//! statistics.rs  from the first to the others
//! tables.rs      compare.json, compare.md
//! csv.rs         compare.csv, written and read
//! live.rs        the runs under way, for the report
//! page.rs        the report
//! sections.rs    its tables, and what may be concluded
//! charts.rs      its charts
//! ```

mod charts;
mod check;
mod contrast;
mod csv;
mod live;
mod page;
mod plan;
mod planned;
mod record;
mod result;
mod runs;
mod sections;
mod statistics;
mod study;
mod tables;
mod timing;
mod worker;
mod workers;

pub use contrast::{Contrast, Difference, Pairing};
pub use live::Live;
pub use plan::{Arm, Correction, Plan, RESOLVE};
pub use result::{Comparison, Outcome, Row, SummaryRow};
pub use runs::{Setup, compare};
pub(crate) use tables::{DELTA_HEADER, TOP1_HEADER};
pub use worker::serve;
