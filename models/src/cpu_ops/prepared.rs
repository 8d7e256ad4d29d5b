//! Weights of folded convolutions in prepared form, kept as long as their convolutions live.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dbb_kernels::ConvShape;
use dbb_kernels::blocked::Weight;

use super::operation::{FlexTensor, slice};

struct Kept {
    /// Shares its values with the convolution. As long as it is held, they cannot change in place, and
    /// no other tensor can have their address.
    weight: FlexTensor,
    prepared: Arc<Weight>,
}

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// How many are kept.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn kept() -> MutexGuard<'static, Vec<Kept>> {
    // No operation panics in the middle of an update, so a poisoned list is consistent.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The prepared form of a contiguous weight, if the kernels serve convolutions of this shape.
pub(super) fn prepared(shape: &ConvShape, weight: &FlexTensor) -> Option<Arc<Weight>> {
    let prepare = || Weight::new(shape, slice(weight)).map(Arc::new);
    // A copy made for this call alone would never be found again.
    if weight.is_unique() {
        return prepare();
    }
    let place = slice(weight).as_ptr_range();
    let find = |kept: &[Kept]| {
        let of_weight = kept.iter().filter(|kept| slice(&kept.weight).as_ptr_range() == place);
        // Convolutions of other groups may share the values.
        let mut prepared = of_weight.map(|kept| &kept.prepared);
        prepared.find(|prepared| prepared.serves(shape)).map(Arc::clone)
    };
    if let Some(found) = find(&kept()) {
        return Some(found);
    }
    let prepared = prepare()?;
    release();
    let mut kept = kept();
    // Another thread may have been faster.
    if find(&kept).is_none() {
        kept.push(Kept { weight: weight.clone(), prepared: Arc::clone(&prepared) });
        COUNT.store(kept.len(), Ordering::Relaxed);
    }
    Some(prepared)
}

/// Frees what belongs to convolutions that no longer exist.
pub(super) fn release() {
    if COUNT.load(Ordering::Relaxed) > 0 {
        let mut kept = kept();
        kept.retain(|kept| !kept.weight.is_unique());
        COUNT.store(kept.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;
    use crate::blocks::{Block, ConvSpec, ConvUnit};
    use crate::cpu_ops::Blocked;
    use crate::cpu_ops::operation::values;
    use crate::implementation::Implementation;
    use crate::layers::feature_map::FeatureMap;

    fn is_kept(unit: &ConvUnit) -> bool {
        let ConvUnit::Folded(conv) = unit else { unreachable!("a folded unit") };
        let weight = values(conv.weight.val());
        kept().iter().any(|kept| slice(&kept.weight).as_ptr() == slice(&weight).as_ptr())
    }

    fn worst(unit: &ConvUnit, images: &Tensor<4>) -> f32 {
        let ConvUnit::Folded(conv) = unit else { unreachable!("a folded unit") };
        let found = Blocked::conv(conv, &FeatureMap::Planes(images.clone()), &Default::default());
        let expected = Implementation::Plain.during(|| unit.forward(images.clone()));
        let difference =
            (found.unwrap().to_tensor() - expected.clone()).abs().max().into_scalar::<f32>();
        difference / expected.abs().max().into_scalar::<f32>()
    }

    #[test]
    fn a_weight_that_changes_is_prepared_anew_and_freed_with_its_convolution() {
        let device = Device::default();
        let spec = ConvSpec::square([64, 48], 3, 1);
        let mut unit = ConvUnit::new(&spec, &Block::Folded, &device).unwrap();
        let images = Tensor::random([2, 64, 20, 20], Distribution::Normal(0.0, 1.0), &device);
        for _ in 0..3 {
            assert!(worst(&unit, &images) < 5e-6);
            assert!(is_kept(&unit));
            let ConvUnit::Folded(conv) = &mut unit else { unreachable!("a folded unit") };
            conv.weight = std::mem::replace(
                &mut conv.weight,
                Param::from_tensor(Tensor::zeros([1; 4], &device)),
            )
            .map(|weight| weight * 1.5 + 0.01);
        }
        let before = kept().len();
        drop(unit);
        release();
        assert!(kept().len() < before);
    }

    #[test]
    fn a_weight_may_be_shared_with_a_convolution_of_another_stride() {
        let device = Device::default();
        let unit = |spec: ConvSpec| ConvUnit::new(&spec, &Block::Folded, &device).unwrap();
        let one = unit(ConvSpec::square([64, 48], 3, 1));
        let mut two = unit(ConvSpec::square([64, 48], 3, 2));
        if let (ConvUnit::Folded(one), ConvUnit::Folded(two)) = (&one, &mut two) {
            two.weight = one.weight.clone();
        }
        let images = Tensor::random([1, 64, 9, 9], Distribution::Default, &device);
        assert!(worst(&one, &images) < 5e-6);
        assert!(is_kept(&one) && is_kept(&two), "one weight");
        // The sum of 576 products in a row.
        let error = worst(&two, &images);
        assert!(error < 5e-6, "{error}");
    }
}
