//! The names of akamaster's pytorch_resnet_cifar10
//! (<https://github.com/akamaster/pytorch_resnet_cifar10>), from which most trained CIFAR ResNets
//! of 20 to 110 layers come: torchvision's, but for the classifier, which is called as ours.

use crate::zoo::Arch;

/// Whether that repository has a network of this architecture.
pub(super) fn knows(arch: Arch) -> bool {
    matches!(
        arch,
        Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet44 | Arch::ResNet56 | Arch::ResNet110
    )
}
