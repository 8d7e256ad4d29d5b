//! A module of a user folds by the derive.
