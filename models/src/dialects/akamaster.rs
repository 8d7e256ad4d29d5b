//! The names of akamaster's pytorch_resnet_cifar10
//! (<https://github.com/akamaster/pytorch_resnet_cifar10>), from which most trained CIFAR ResNets
//! of 20 to 110 layers come: torchvision's, but for the classifier, which is called as ours.

use super::{Dialect, Names, torchvision};

/// ResNets of three stages.
pub(crate) const RESNET: Names =
    Names { dialect: Dialect::Akamaster, others: |_, native| native.into(), ..torchvision::RESNET };
