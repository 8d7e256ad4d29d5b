//! Markdown pages whose tables, numbers and pictures come from the tables of comparisons.
//!
//! A part of a page stands between two comments, which Markdown does not show:
//!
//! ```text
//! <!-- dbb comparisons results/blocks.csv -->
//! ...
//! <!-- /dbb -->
//!
//! DBB gains <!-- dbb delta results/blocks.csv dbb base -->+0.31 ± 0.20<!-- /dbb --> points.
//! ```
//!
//! ```text
//! page.rs      finds the parts of a page and fills them
//! part.rs      what a part can be
//! tables.rs    the parts that are tables
//! picture.rs   the parts that are pictures
//! ```

mod page;
mod part;
mod picture;
mod tables;

pub use page::{Filled, fill};
pub use part::Part;
