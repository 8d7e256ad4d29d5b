//! Depthwise layers of MobileNetV1 at 224 and at 96, batch 16: plain with batch norm, and as a Diverse
//! Branch Block.

use criterion::{Criterion, criterion_group, criterion_main};
use dbb_kernels::branches::{Branch, BranchMap, BranchSum, Wanted};
use dbb_kernels::dense::PaddedNorm;
use dbb_kernels::{Activation, ConvShape, Norm};

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn layers(criterion: &mut Criterion) {
    for (channels, size, stride) in [
        (32, 112, 1),
        (64, 112, 2),
        (256, 28, 1),
        (512, 14, 1),
        (32, 48, 1),
        (128, 24, 1),
        (256, 12, 1),
        (512, 6, 1),
        (1024, 3, 1),
    ] {
        let shape = ConvShape {
            batch: 16,
            in_channels: channels,
            out_channels: channels,
            input: [size; 2],
            kernel: [3; 2],
            stride: [stride; 2],
            padding: [1; 2],
            groups: channels,
        };
        let (x, dy) = (wave(shape.input_len()), wave(shape.output_len()));
        let (weight, weight1, weight2) =
            (wave(9 * channels), wave(2 * channels), wave(18 * channels));
        let (ones, zeros) = (vec![1.0; 2 * channels], vec![0.0; 2 * channels]);
        let gamma = &ones[..channels];
        let norm = Some(Norm { gamma, beta: &zeros[..channels], epsilon: 1e-5, fixed: None });
        let opening = PaddedNorm {
            weight: &weight1,
            gamma: &ones,
            beta: &zeros,
            running_mean: &zeros,
            running_var: &ones,
            momentum: 0.1,
            epsilon: 1e-5,
            fixed: false,
        };
        let branches = [
            BranchMap::Conv { weight: &weight, kernel: shape.kernel },
            BranchMap::PaddedConv { opening, weight: &weight2 },
            BranchMap::Average,
        ]
        .map(|map| Branch { map, norm });
        let wanted = Wanted { input: true, residual: false, parameters: true };
        let mut y = vec![0.0; dy.len()];
        let mut group = criterion.benchmark_group(format!("{channels}x{size}s{stride}"));
        group.sample_size(10);
        for (name, branches) in [("plain", &branches[..1]), ("dbb", &branches)] {
            let block = BranchSum { shape, branches, outer: None };
            group.bench_function(format!("{name} forward"), |bencher| {
                bencher.iter(|| block.forward(&x, None, Activation::Relu, &mut y))
            });
            let (_, saved) = block.forward(&x, None, Activation::Relu, &mut y);
            group.bench_function(format!("{name} backward"), |bencher| {
                bencher.iter(|| {
                    let grad = block.backward(&x, &y, &saved, &dy, wanted);
                    grad.input.into_iter().for_each(dbb_kernels::buffer::give);
                })
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
