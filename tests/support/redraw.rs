//! Networks that are the same in every run: the tests of a process run side by side and share the random
//! numbers of the device, so that its seed does not decide what one of them draws.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// The module with other values where its initialisation drew at random: uniform ones with the variance of
/// He's initialisation. What is constant at first, as scales, shifts and statistics, stays.
pub fn redraw<M: Module>(module: M, seed: u64) -> M {
    struct Redraw(ChaCha8Rng);
    impl ModuleMapper for Redraw {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let drawn: Vec<f32> = param.val().into_data().iter().collect();
            if drawn.windows(2).all(|pair| pair[0] == pair[1]) {
                return param;
            }
            let fan_in: usize = param.dims()[1..].iter().product();
            let bound = (6.0 / fan_in as f32).sqrt();
            let values: Vec<_> = drawn.iter().map(|_| self.0.random_range(-bound..bound)).collect();
            param.map(|tensor| {
                let data = TensorData::new(values, tensor.dims());
                let redrawn = Tensor::from_data(data, &tensor.device());
                if tensor.is_require_grad() { redrawn.require_grad() } else { redrawn }
            })
        }
    }
    module.map(&mut Redraw(ChaCha8Rng::seed_from_u64(seed)))
}
