//! The two forms of a network.

use crate::names::named;

named! {
    /// Whether a network holds blocks of several branches or the convolutions they fold into.
    pub enum Form: "form" {
        /// Blocks with batch norms, as training needs them.
        Train = "train",
        /// Plain convolutions with bias.
        Deploy = "deploy",
    }
}
