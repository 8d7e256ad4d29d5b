//! Layer tables, written out from the papers.

use dbb_models::Arch;
use dbb_models::blocks::BlockKind;

/// A convolution as the papers' tables list it.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub groups: usize,
    /// Height and width of the output.
    pub size: usize,
    /// Whether the output has the shape of the input.
    pub keeps_shape: bool,
}

impl Layer {
    pub fn weights(&self) -> usize {
        self.inputs / self.groups * self.outputs * self.kernel.pow(2)
    }

    /// OREPA's 1x1 form: the plain kernel, two whose product is added, two scales for every output.
    pub fn orepa_pointwise(&self) -> usize {
        let Self { inputs, outputs, .. } = *self;
        self.weights() + inputs.min(outputs) * (inputs + outputs) + 2 * outputs + 2 * outputs
    }

    pub fn params(&self, block: BlockKind) -> usize {
        let Self { inputs, outputs, kernel, groups, .. } = *self;
        let norm = 2 * outputs;
        let origin = self.weights() + norm;
        let pointwise = inputs / groups * outputs;
        let identity = if self.keeps_shape { norm } else { 0 };
        let is_plain = kernel == 1 || kernel > 5;
        match block {
            _ if is_plain => origin,
            BlockKind::Base => origin,
            BlockKind::Dbb if groups == outputs => {
                // Twice the width inside, no 1x1 before the average pool.
                let (first, second) = (2 * inputs, 2 * outputs * kernel.pow(2));
                origin + (first + 2 * first + second + norm) + norm
            }
            BlockKind::Dbb => {
                let first = inputs * inputs / groups;
                let pointwise_kxk = first + 2 * inputs + self.weights() + norm;
                let average = pointwise + norm + norm;
                origin + (pointwise + norm) + pointwise_kxk + average
            }
            BlockKind::Acb => {
                let strip = pointwise * kernel + norm;
                origin + 2 * strip
            }
            BlockKind::RepVgg => origin + (pointwise + norm) + identity,
            // Four copies.
            BlockKind::MobileOne => 4 * origin + (pointwise + norm) + identity,
            BlockKind::QaRepVgg => origin + pointwise + norm,
            BlockKind::Orepa => {
                let internal = if groups <= 4 { inputs } else { 2 * inputs };
                let sequence =
                    internal * (inputs / groups) + outputs * (internal / groups) * kernel.pow(2);
                let separable = 8 * inputs * kernel.pow(2) + 8 * pointwise;
                // Average, frequency and 1x1 kernels; a scale of six for every output.
                origin + 3 * pointwise + sequence + separable + 6 * outputs
            }
        }
    }
}

/// Convolutions, and inputs and outputs of the layers that see one value per channel; the
/// classes are the last of these.
pub type Table = (Vec<Layer>, Vec<[usize; 2]>);

fn dense(inputs: usize, outputs: usize, kernel: usize, size: usize) -> Layer {
    Layer { inputs, outputs, kernel, groups: 1, size, keeps_shape: false }
}

/// Table 1 of "Deep Residual Learning for Image Recognition": `depths` blocks a stage, the first
/// convolution at `size`, stages of `widths` channels.
fn resnet(
    stem: Layer,
    depths: &[usize],
    bottleneck: bool,
    size: usize,
    projections: bool,
) -> Table {
    let mut layers = vec![stem];
    let mut inputs = stem.outputs;
    for (stage, &depth) in depths.iter().enumerate() {
        let (planes, size) = (stem.outputs << stage, size >> stage);
        let outputs = if bottleneck { 4 * planes } else { planes };
        for block in 0..depth {
            // The stride of a stage is in its first 3x3.
            let before = if stage > 0 && block == 0 { 2 * size } else { size };
            if bottleneck {
                layers.push(dense(inputs, planes, 1, before));
                layers.push(dense(planes, planes, 3, size));
                layers.push(dense(planes, outputs, 1, size));
            } else {
                layers.push(dense(inputs, planes, 3, size));
                layers.push(dense(planes, planes, 3, size));
            }
            if projections && block == 0 && (stage > 0 || inputs != outputs) {
                layers.push(dense(inputs, outputs, 1, size));
            }
            inputs = outputs;
        }
    }
    (layers, vec![[inputs, 0]])
}

/// Table 1 of "MobileNets".
fn mobilenet() -> Table {
    let mut layers = vec![dense(3, 32, 3, 112)];
    let mut inputs = 32;
    for (outputs, size) in [
        (64, 112),
        (128, 56),
        (128, 56),
        (256, 28),
        (256, 28),
        (512, 14),
        (512, 14),
        (512, 14),
        (512, 14),
        (512, 14),
        (512, 14),
        (1024, 7),
        (1024, 7),
    ] {
        layers.push(Layer { groups: inputs, ..dense(inputs, inputs, 3, size) });
        layers.push(dense(inputs, outputs, 1, size));
        inputs = outputs;
    }
    (layers, vec![[1024, 0]])
}

/// Table 2 of "MobileNetV2", line by line: expansion, output channels, repetitions, stride.
fn mobilenet_v2() -> Table {
    let mut layers = vec![dense(3, 32, 3, 112)];
    let (mut inputs, mut size) = (32, 112);
    for (expansion, outputs, repetitions, stride) in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ] {
        for repetition in 0..repetitions {
            let hidden = expansion * inputs;
            if expansion > 1 {
                layers.push(dense(inputs, hidden, 1, size));
            }
            size /= if repetition == 0 { stride } else { 1 };
            layers.push(Layer { groups: hidden, ..dense(hidden, hidden, 3, size) });
            layers.push(dense(hidden, outputs, 1, size));
            inputs = outputs;
        }
    }
    layers.push(dense(inputs, 1280, 1, size));
    (layers, vec![[1280, 0]])
}

/// Tables 1 and 2 of "Searching for MobileNetV3", line by line: kernel, expanded and output
/// channels, squeeze-and-excite, stride. The blocks squeeze to a quarter, rounded to eights.
fn mobilenet_v3(lines: &[(usize, usize, usize, bool, usize)], hidden: usize) -> Table {
    let (mut layers, mut dense_layers) = (vec![dense(3, 16, 3, 112)], Vec::new());
    let (mut inputs, mut size) = (16, 112);
    for &(kernel, expanded, outputs, squeezes, stride) in lines {
        if expanded != inputs {
            layers.push(dense(inputs, expanded, 1, size));
        }
        size /= stride;
        layers.push(Layer { groups: expanded, ..dense(expanded, expanded, kernel, size) });
        if squeezes {
            let quarter = match expanded {
                16 => 8,
                72 | 96 => 24,
                120 => 32,
                144 => 40,
                240 => 64,
                672 => 168,
                more => more / 4,
            };
            dense_layers.extend([[expanded, quarter], [quarter, expanded]]);
        }
        layers.push(dense(expanded, outputs, 1, size));
        inputs = outputs;
    }
    layers.push(dense(inputs, 6 * inputs, 1, size));
    dense_layers.extend([[6 * inputs, hidden], [hidden, 0]]);
    (layers, dense_layers)
}

const V3_LARGE: [(usize, usize, usize, bool, usize); 15] = [
    (3, 16, 16, false, 1),
    (3, 64, 24, false, 2),
    (3, 72, 24, false, 1),
    (5, 72, 40, true, 2),
    (5, 120, 40, true, 1),
    (5, 120, 40, true, 1),
    (3, 240, 80, false, 2),
    (3, 200, 80, false, 1),
    (3, 184, 80, false, 1),
    (3, 184, 80, false, 1),
    (3, 480, 112, true, 1),
    (3, 672, 112, true, 1),
    (5, 672, 160, true, 2),
    (5, 960, 160, true, 1),
    (5, 960, 160, true, 1),
];

const V3_SMALL: [(usize, usize, usize, bool, usize); 11] = [
    (3, 16, 16, true, 2),
    (3, 72, 24, false, 2),
    (3, 88, 24, false, 1),
    (5, 96, 40, true, 2),
    (5, 240, 40, true, 1),
    (5, 240, 40, true, 1),
    (5, 120, 48, true, 1),
    (5, 144, 48, true, 1),
    (5, 288, 96, true, 2),
    (5, 576, 96, true, 1),
    (5, 576, 96, true, 1),
];

/// Tables 2 and 3 of "RepVGG": channels and layers of a stage, every one of which halves the
/// resolution in its first layer.
fn repvgg(stages: [(usize, usize); 5]) -> Table {
    let (mut layers, mut inputs, mut size) = (Vec::new(), 3, 224);
    for (outputs, depth) in stages {
        size /= 2;
        for _ in 0..depth {
            layers.push(dense(inputs, outputs, 3, size));
            inputs = outputs;
        }
    }
    (layers, vec![[inputs, 0]])
}

/// "MobileOne" (Vasu et al., CVPR 2023) as Apple publishes it: channels of the stem and the stages, and
/// how many layers at the end of each have squeeze-and-excitation, in both convolutions.
fn mobileone(stem: usize, widths: [usize; 4], squeezes: [usize; 4]) -> Table {
    let (mut layers, mut dense_layers) = (vec![dense(3, stem, 3, 112)], Vec::new());
    let (mut inputs, mut size) = (stem, 112);
    for (stage, depth) in [2, 8, 10, 1].into_iter().enumerate() {
        size /= 2;
        for layer in 0..depth {
            let outputs = widths[stage];
            layers.push(Layer { groups: inputs, ..dense(inputs, inputs, 3, size) });
            layers.push(dense(inputs, outputs, 1, size));
            if layer + squeezes[stage] >= depth {
                for channels in [inputs, outputs] {
                    dense_layers.extend([[channels, channels / 16], [channels / 16, channels]]);
                }
            }
            inputs = outputs;
        }
    }
    dense_layers.push([inputs, 0]);
    (layers, dense_layers)
}

/// Configuration D of table 1 of "Very Deep Convolutional Networks", with the inputs and outputs of
/// the layers of the classifier.
fn vgg16(image: usize, classifier: Vec<[usize; 2]>) -> Table {
    let (mut layers, mut inputs) = (Vec::new(), 3);
    for (stage, (outputs, depth)) in
        [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)].into_iter().enumerate()
    {
        for _ in 0..depth {
            layers.push(dense(inputs, outputs, 3, image >> stage));
            inputs = outputs;
        }
    }
    (layers, classifier)
}

/// `alexnet.py` of the paper's repository.
fn alexnet() -> Table {
    let layers = vec![
        dense(3, 64, 11, 55),
        dense(64, 192, 5, 27),
        dense(192, 384, 3, 13),
        dense(384, 384, 3, 13),
        dense(384, 256, 3, 13),
    ];
    (layers, vec![[256 * 6 * 6, 4096], [4096, 4096], [4096, 0]])
}

pub fn table(arch: Arch) -> Table {
    let imagenet =
        |depths: &[usize], bottleneck| resnet(dense(3, 64, 7, 112), depths, bottleneck, 56, true);
    let cifar = |n: usize| resnet(dense(3, 16, 3, 32), &[n; 3], false, 32, false);
    match arch {
        Arch::ResNet18 => imagenet(&[2, 2, 2, 2], false),
        Arch::ResNet34 => imagenet(&[3, 4, 6, 3], false),
        Arch::ResNet50 => imagenet(&[3, 4, 6, 3], true),
        Arch::ResNet101 => imagenet(&[3, 4, 23, 3], true),
        Arch::ResNet152 => imagenet(&[3, 8, 36, 3], true),
        Arch::ResNet18Cifar => resnet(dense(3, 64, 3, 32), &[2, 2, 2, 2], false, 32, true),
        Arch::ResNet20 => cifar(3),
        Arch::ResNet32 => cifar(5),
        Arch::ResNet44 => cifar(7),
        Arch::ResNet56 => cifar(9),
        Arch::ResNet110 => cifar(18),
        Arch::MobileNetV1 => mobilenet(),
        Arch::MobileNetV2 => mobilenet_v2(),
        Arch::MobileNetV3Large => mobilenet_v3(&V3_LARGE, 1280),
        Arch::MobileNetV3Small => mobilenet_v3(&V3_SMALL, 1024),
        Arch::RepVggA0 => repvgg([(48, 1), (48, 2), (96, 4), (192, 14), (1280, 1)]),
        Arch::RepVggA1 => repvgg([(64, 1), (64, 2), (128, 4), (256, 14), (1280, 1)]),
        Arch::RepVggA2 => repvgg([(64, 1), (96, 2), (192, 4), (384, 14), (1408, 1)]),
        Arch::RepVggB0 => repvgg([(64, 1), (64, 4), (128, 6), (256, 16), (1280, 1)]),
        Arch::RepVggB1 => repvgg([(64, 1), (128, 4), (256, 6), (512, 16), (2048, 1)]),
        Arch::MobileOneS0 => mobileone(48, [48, 128, 256, 1024], [0; 4]),
        Arch::MobileOneS1 => mobileone(64, [96, 192, 512, 1280], [0; 4]),
        Arch::MobileOneS2 => mobileone(64, [96, 256, 640, 2048], [0; 4]),
        Arch::MobileOneS3 => mobileone(64, [128, 320, 768, 2048], [0; 4]),
        Arch::MobileOneS4 => mobileone(64, [192, 448, 896, 2048], [0, 0, 5, 1]),
        Arch::Vgg16 => vgg16(224, vec![[512 * 7 * 7, 4096], [4096, 4096], [4096, 0]]),
        Arch::Vgg16Cifar => vgg16(32, vec![[512, 512], [512, 0]]),
        Arch::AlexNet => alexnet(),
    }
}
