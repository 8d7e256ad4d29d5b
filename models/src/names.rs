//! Lists of names for errors.

/// `"one of a, b, c"` from literals.
macro_rules! one_of {
    ($first:literal $(, $rest:literal)*) => { concat!("one of ", $first $(, ", ", $rest)*) };
}
pub(crate) use one_of;
