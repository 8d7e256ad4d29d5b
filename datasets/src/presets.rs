//! Normalisation constants of well-known data sets.

/// Mean and standard deviation per channel, on the 0 to 1 scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Mean of each channel.
    pub mean: &'static [f32],
    /// Standard deviation of each channel.
    pub std: &'static [f32],
}

/// ImageNet, RGB; also the usual choice for other photographs.
pub const IMAGENET: Normalization =
    Normalization { mean: &[0.485, 0.456, 0.406], std: &[0.229, 0.224, 0.225] };

/// CIFAR-10, RGB.
pub const CIFAR10: Normalization =
    Normalization { mean: &[0.4914, 0.4822, 0.4465], std: &[0.2470, 0.2435, 0.2616] };

/// CIFAR-100, RGB.
pub const CIFAR100: Normalization =
    Normalization { mean: &[0.5071, 0.4865, 0.4409], std: &[0.2673, 0.2564, 0.2762] };

/// Fashion-MNIST, grey.
pub const FASHION_MNIST: Normalization = Normalization { mean: &[0.2860], std: &[0.3530] };

/// MNIST digits, grey; for data sets that a program makes itself, since IDX files do not say what they
/// hold.
pub const MNIST: Normalization = Normalization { mean: &[0.1307], std: &[0.3081] };

impl Normalization {
    /// Mean and standard deviation for a network with `channels` input channels.
    ///
    /// Grey constants are replicated, RGB constants averaged where the counts differ.
    pub fn for_channels(&self, channels: usize) -> (Vec<f32>, Vec<f32>) {
        let fit = |values: &[f32]| {
            if values.len() == channels {
                values.to_vec()
            } else {
                vec![values.iter().sum::<f32>() / values.len() as f32; channels]
            }
        };
        (fit(self.mean), fit(self.std))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_follow_the_channels() {
        assert_eq!(FASHION_MNIST.for_channels(3).0, [0.2860; 3]);
        let (mean, _) = IMAGENET.for_channels(1);
        assert!((mean[0] - (0.485 + 0.456 + 0.406) / 3.0).abs() < 1e-6);
        assert_eq!(IMAGENET.for_channels(3).1, IMAGENET.std);
    }
}
