//! Statistics of a batch of which a process has a part.

use std::borrow::Cow;
use std::fmt::Debug;

use crate::norm::{Statistics, Sums};

/// The members of a group that share a batch. Each calls in the same order with equally many values.
pub trait Members: Debug {
    /// Images of the whole batch.
    fn images(&self) -> usize;

    /// Replaces values by their sums over the members.
    fn sum(&self, values: &mut [f64]);
}

/// The batch that norms take their statistics of: what a kernel is given, or more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    /// Images that the kernel is given.
    images: usize,
    members: Option<&'a dyn Members>,
}

impl<'a> Batch<'a> {
    pub fn new(images: usize, members: Option<&'a dyn Members>) -> Self {
        Self { images, members }
    }

    /// Images of the batch.
    pub fn images(&self) -> usize {
        self.members.map_or(self.images, |members| members.images())
    }

    /// Replaces statistics of this part by those of the batch, in one sum of all.
    pub fn extend<'s>(&self, parts: impl IntoIterator<Item = &'s mut Statistics>) {
        let Some(members) = self.members else { return };
        let mut parts: Vec<_> = parts.into_iter().collect();
        // Means of values and of squares; in f64 their difference has digits to spare.
        let weight = self.images as f64;
        let moments = |part: &&mut Statistics| {
            let pairs = part.mean.iter().zip(&part.var);
            pairs.flat_map(|(m, v)| [weight * m, weight * (v + m * m)]).collect::<Vec<_>>()
        };
        let mut sums: Vec<f64> = parts.iter().flat_map(moments).collect();
        if sums.is_empty() {
            return;
        }
        members.sum(&mut sums);
        let images = members.images() as f64;
        let mut sums = sums.chunks_exact(2);
        for part in &mut parts {
            for ((mean, var), sums) in part.mean.iter_mut().zip(&mut part.var).zip(&mut sums) {
                *mean = sums[0] / images;
                *var = crate::norm::variance(sums[1] / images - *mean * *mean);
            }
        }
    }

    /// The sums of a backward pass over the batch.
    pub fn sums<'s>(&self, own: &'s Sums) -> Cow<'s, Sums> {
        let Some(members) = self.members else { return Cow::Borrowed(own) };
        let mut all = [&own.gradient[..], &own.products].concat();
        members.sum(&mut all);
        let products = all.split_off(own.gradient.len());
        Cow::Owned(Sums { gradient: all, products })
    }
}
