//! Blocks as single operations on the flex backend.

mod operation;
