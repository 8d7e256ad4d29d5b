//! Convolution kernels on shapes of ResNet and MobileNet; throughput in multiply-adds.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dbb_kernels::{ConvShape, conv};

fn layer(batch: usize, [c, d]: [usize; 2], side: usize, k: usize, s: usize) -> ConvShape {
    ConvShape {
        batch,
        in_channels: c,
        out_channels: d,
        input: [side, side],
        kernel: [k, k],
        stride: [s, s],
        padding: [k / 2, k / 2],
        groups: 1,
    }
}

fn convolutions(criterion: &mut Criterion) {
    for (batch, channels, side, k, s) in [
        (64, [64, 64], 32, 3, 1),
        (64, [64, 128], 32, 3, 2),
        (64, [512, 512], 4, 3, 1),
        (16, [128, 128], 56, 1, 1),
        (16, [3, 64], 224, 7, 2),
        (1, [512, 512], 7, 3, 1),
    ] {
        let shape = layer(batch, channels, side, k, s);
        let name = format!("{batch}x{}->{} {side} {k}x{k}/{s}", channels[0], channels[1]);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements(shape.macs() as u64));
        let x = vec![0.5; shape.input_len()];
        let w = vec![0.5; shape.weight_len()];
        let dy = vec![0.5; shape.output_len()];
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        group.bench_function("forward", |bencher| {
            bencher.iter(|| conv::forward(&shape, black_box(&x), &w, &mut y, Default::default()));
        });
        group.bench_function("backward_input", |bencher| {
            bencher.iter(|| conv::backward_input(&shape, black_box(&dy), &w, &mut dx, false));
        });
        group.bench_function("backward_weight", |bencher| {
            bencher.iter(|| conv::backward_weight(&shape, black_box(&x), &dy, &mut dw));
        });
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
