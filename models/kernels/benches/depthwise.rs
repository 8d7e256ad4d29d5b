//! Depthwise layers of MobileNetV1 at 224, batch 16: plain with batch norm, and as a Diverse
//! Branch Block.

use criterion::{Criterion, criterion_group, criterion_main};
use dbb_kernels::depthwise::{Dbb, Kxk, PointwiseKxk, dbb_backward, dbb_forward};
use dbb_kernels::{ConvShape, Norm};

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn layers(criterion: &mut Criterion) {
    for (channels, size, stride) in [(32, 112, 1), (64, 112, 2), (256, 28, 1), (512, 14, 1)] {
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
        let norm = |n| Norm { gamma: &ones[..n], beta: &zeros[..n], epsilon: 1e-5 };
        let plain = Dbb {
            kxk: Some(Kxk { weight: &weight, norm: norm(channels) }),
            pointwise_kxk: None,
            average: None,
        };
        let inner = PointwiseKxk {
            weight1: &weight1,
            norm1: norm(2 * channels),
            running_mean: &zeros,
            running_var: &ones,
            momentum: 0.1,
            weight2: &weight2,
            norm2: norm(channels),
        };
        let diverse = Dbb { pointwise_kxk: Some(inner), average: Some(norm(channels)), ..plain };
        let mut y = vec![0.0; dy.len()];
        let mut dx = vec![0.0; x.len()];
        let mut group = criterion.benchmark_group(format!("{channels}x{size}s{stride}"));
        group.sample_size(10);
        for (name, block) in [("plain", &plain), ("dbb", &diverse)] {
            group.bench_function(format!("{name} forward"), |bencher| {
                bencher.iter(|| dbb_forward(&shape, &x, block, true, &mut y))
            });
            let (_, saved) = dbb_forward(&shape, &x, block, true, &mut y);
            group.bench_function(format!("{name} backward"), |bencher| {
                bencher.iter(|| dbb_backward(&shape, &x, Some(&y), &dy, block, &saved, &mut dx))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
