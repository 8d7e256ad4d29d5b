//! Batch statistics of a batch that is spread over several processes.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use burn::tensor::{Device, Tensor};

use crate::cpu_ops;

/// Sums over the members of a group that trains together.
pub trait GroupSum: Debug + Send + Sync {
    /// Replaces values by their sums over the members, which call in the same order with equally many.
    fn sum(&self, values: &mut [f64]);
}

/// The whole of a batch of which a forward pass sees a part: batch norms take their statistics, and
/// their gradients, from all of it ("SyncBatchNorm" of PyTorch).
///
/// It belongs to a scope, as [`Implementation`](crate::Implementation) does. The backward pass of what
/// was computed there sums over the members, too: each must run it. It needs the device flex.
#[derive(Clone, Debug)]
pub struct WholeBatch {
    /// Images of all members.
    pub images: usize,
    /// Whether this member's images are part of the batch. One without images lets others stand in,
    /// so that it takes part in every sum, and counts them as nothing.
    pub counts: bool,
    /// The other members.
    pub members: Arc<dyn GroupSum>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Scope>>> = const { RefCell::new(None) };
}

/// A forward pass over a part, and how many sums it has made.
#[derive(Debug)]
pub(crate) struct Scope {
    batch: WholeBatch,
    sums: AtomicU32,
}

/// A sum in a forward pass, or a layer's, and in its backward pass.
#[derive(Clone, Debug)]
pub(crate) struct SumOverMembers {
    scope: Arc<Scope>,
    /// Which one of the pass it is, from 1.
    number: u32,
}

impl WholeBatch {
    /// Runs the forward passes of `work` on a part of this batch.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        struct Restore(Option<Arc<Scope>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let scope = Arc::new(Scope { batch: self, sums: AtomicU32::new(0) });
        let _restore = Restore(CURRENT.replace(Some(scope)));
        work()
    }

    /// Whether a device can be synchronised.
    pub fn serves(device: &Device) -> bool {
        cpu_ops::serves_sums(device)
    }

    pub(crate) fn current() -> Option<Arc<Scope>> {
        CURRENT.with_borrow(Clone::clone)
    }
}

impl Scope {
    /// Images of the whole batch.
    pub fn images(&self) -> usize {
        self.batch.images
    }

    /// The next sum of this pass.
    pub fn next_sum(self: &Arc<Self>) -> SumOverMembers {
        let number = self.sums.fetch_add(1, Ordering::Relaxed) + 1;
        SumOverMembers { scope: Arc::clone(self), number }
    }

    /// The sum of `[channels]` over all members. The gradient of the sum is that of every member's
    /// part: the sum of the gradients that the members have of it.
    pub fn sum(self: &Arc<Self>, own: Tensor<1>) -> Tensor<1> {
        cpu_ops::sum_over_members(own, self.next_sum())
    }
}

// Without the backend flex nothing sums.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
impl SumOverMembers {
    /// Images of the whole batch.
    pub fn images(&self) -> usize {
        self.scope.images()
    }

    /// Replaces values by their sums over the members, in the forward pass or its backward pass.
    ///
    /// # Panics
    /// If another member sums something else: their networks are not the same.
    pub fn sum(&self, values: &mut [f64]) {
        let WholeBatch { counts, members, .. } = &self.scope.batch;
        let mut sums = if *counts { values.to_vec() } else { vec![0.0; values.len()] };
        // One value more says which sum it is, and one who takes part.
        sums.extend([f64::from(self.number), 1.0]);
        members.sum(&mut sums);
        let [found, size] = [values.len(), values.len() + 1].map(|i| sums[i]);
        assert!(
            found == f64::from(self.number) * size,
            "members of a group are at different layers"
        );
        values.copy_from_slice(&sums[..values.len()]);
    }
}
