//! Dense Diverse Branch Blocks: of ResNet-18 for CIFAR at batch 64, with merged and with separate
//! kernels, and the first block of MobileNetV1.

use criterion::{Criterion, criterion_group, criterion_main};
use dbb_kernels::branches::Wanted;
use dbb_kernels::dense::{DenseBlock, PaddedNorm};
use dbb_kernels::{Activation, ConvNorm, ConvShape, Norm};

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn blocks(criterion: &mut Criterion) {
    for (batch, [inputs, outputs], size, stride) in [
        (64, [64, 64], 32, 1),
        (64, [64, 128], 32, 2),
        (64, [512, 512], 4, 1),
        (16, [3, 32], 224, 2),
    ] {
        let shape = ConvShape {
            batch,
            in_channels: inputs,
            out_channels: outputs,
            input: [size; 2],
            kernel: [3; 2],
            stride: [stride; 2],
            padding: [1; 2],
            groups: 1,
        };
        let (x, dy) = (wave(shape.input_len()), wave(shape.output_len()));
        let kxk = wave(shape.weight_len());
        let second = wave(outputs * inputs * 9);
        let (ones, zeros) = (vec![1.0; 1024], vec![0.0; 1024]);
        let norm =
            Norm { gamma: &ones[..outputs], beta: &zeros[..outputs], epsilon: 1e-5, fixed: None };
        let opening = |width: usize| PaddedNorm {
            weight: &kxk[..width * inputs],
            gamma: &ones[..width],
            beta: &zeros[..width],
            running_mean: &zeros[..width],
            running_var: &ones[..width],
            momentum: 0.1,
            epsilon: 1e-5,
            fixed: false,
        };
        let block = DenseBlock {
            shape,
            kxk: ConvNorm { weight: &kxk, norm },
            pointwise: ConvNorm { weight: &kxk[..outputs * inputs], norm },
            pointwise_kxk: (opening(inputs), ConvNorm { weight: &second, norm }),
            average: (opening(outputs), norm),
        };
        let mut y = vec![0.0; dy.len()];
        let mut group = criterion.benchmark_group(format!("{inputs}to{outputs}at{size}s{stride}"));
        group.sample_size(10);
        group.bench_function("forward", |bencher| {
            bencher.iter(|| block.forward(&x, None, Activation::Relu, &mut y))
        });
        let (_, saved) = block.forward(&x, None, Activation::Relu, &mut y);
        // Images have no gradient.
        let wanted = Wanted { input: inputs > 3, residual: false, parameters: true };
        group.bench_function("backward", |bencher| {
            bencher.iter(|| block.backward(&x, &y, &saved, &dy, wanted))
        });
        group.finish();
    }
}

criterion_group!(benches, blocks);
criterion_main!(benches);
