//! The integers of a layer with weights.

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use dbb_kernels::int8::{Affine, LARGEST_BIAS};
use serde::Serialize;

use crate::layers::conv_spec::host;

/// The integers that weights are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightRange {
    /// -127 to 127.
    #[default]
    Full,
    /// -64 to 64. Without instructions for products of 8 bits (VNNI on x86), runtimes add two products in
    /// 16 bits, which these cannot overflow.
    Reduced,
}

impl WeightRange {
    /// The largest magnitude.
    fn levels(self) -> f64 {
        match self {
            Self::Full => 127.0,
            Self::Reduced => 64.0,
        }
    }
}

/// Weights `[out, ..]` in 8 bits with one scale per output, and the bias in the units of its sums.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8Layer {
    pub weight: Vec<i8>,
    /// Of each output channel.
    pub scales: Vec<f32>,
    /// In units of the scale of the input times that of the output channel.
    pub bias: Vec<i32>,
}

impl Int8Layer {
    pub fn of_conv(conv: &Conv2d, input: Affine, range: WeightRange) -> Self {
        let bias = conv.bias.as_ref().map(|bias| host(bias.val()));
        let outputs = conv.weight.dims()[0];
        Self::new(&host(conv.weight.val()), outputs, bias, input, range)
    }

    /// Burn's weight is `[in, out]`.
    pub fn of_linear(linear: &Linear, input: Affine, range: WeightRange) -> Self {
        let bias = linear.bias.as_ref().map(|bias| host(bias.val()));
        let weight = linear.weight.val().transpose();
        let outputs = weight.dims()[0];
        Self::new(&host(weight), outputs, bias, input, range)
    }

    fn new(
        weight: &[f64],
        outputs: usize,
        bias: Option<Vec<f64>>,
        input: Affine,
        range: WeightRange,
    ) -> Self {
        let bias = bias.unwrap_or_else(|| vec![0.0; outputs]);
        let input = f64::from(input.scale);
        let rows = weight.chunks_exact(weight.len() / outputs);
        let scale = |(row, bias): (&[f64], &f64)| {
            let largest = row.iter().fold(0.0f64, |largest, w| largest.max(w.abs()));
            // A channel of small weights may have a bias that is not within the integers of its scale.
            let least = bias.abs() / input / f64::from(LARGEST_BIAS);
            let scale = (largest / range.levels()).max(least).max(f64::from(f32::MIN_POSITIVE));
            scale as f32
        };
        let scales: Vec<f32> = rows.clone().zip(&bias).map(scale).collect();
        let weight = rows.zip(&scales).flat_map(|(row, &scale)| {
            let (scale, levels) = (f64::from(scale), range.levels());
            row.iter().map(move |w| (w / scale).round_ties_even().clamp(-levels, levels) as i8)
        });
        let largest = f64::from(LARGEST_BIAS);
        let bias = bias.iter().zip(&scales).map(|(bias, &scale)| {
            let units = bias / (input * f64::from(scale));
            units.round_ties_even().clamp(-largest, largest) as i32
        });
        Self { weight: weight.collect(), bias: bias.collect(), scales }
    }

    /// The scale of the sums of each output channel.
    pub fn sum_scales(&self, input: Affine) -> Vec<f32> {
        self.scales.iter().map(|scale| input.scale * scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Affine = Affine { scale: 0.5, zero_point: 3 };

    fn layer(range: WeightRange) -> Int8Layer {
        Int8Layer::new(&[1.0, -0.25, 0.0, 0.0], 2, Some(vec![1.0, 3.0]), INPUT, range)
    }

    #[test]
    fn every_output_has_its_scale_and_a_bias_in_its_units() {
        let full = layer(WeightRange::Full);
        // 1 is 127 steps, a quarter nearest to 32; a bias of 1 is 254 steps of 0.5 / 127.
        assert_eq!(full.weight, [127, -32, 0, 0]);
        assert_eq!(full.scales[0], 1.0 / 127.0);
        assert_eq!(full.bias[0], 254);
        let reduced = layer(WeightRange::Reduced);
        assert_eq!((&reduced.weight[..2], reduced.scales[0]), (&[64, -16][..], 1.0 / 64.0));
        assert_eq!(reduced.bias[0], 128);
    }

    /// A channel without weights, such as one that training has switched off.
    #[test]
    fn a_bias_without_weights_fits_into_its_integers() {
        let layer = layer(WeightRange::Full);
        assert!(layer.bias[1] <= LARGEST_BIAS && layer.bias[1] > LARGEST_BIAS / 2);
        let bias = f64::from(layer.bias[1]) * f64::from(layer.sum_scales(INPUT)[1]);
        assert!((bias - 3.0).abs() < 1e-6, "{bias}");
    }
}
