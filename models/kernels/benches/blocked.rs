//! Convolutions on maps in the channel-blocked layout, on shapes of MobileNetV1 and ResNets; throughput in
//! multiply-adds.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dbb_kernels::blocked::{
    Depthwise, Epilogue, Map, Source, Weight, convolve, convolve_separable,
};
use dbb_kernels::{Activation, ConvShape};

fn layer(batch: usize, channels: [usize; 2], side: usize, k: usize, s: usize) -> ConvShape {
    ConvShape {
        batch,
        in_channels: channels[0],
        out_channels: channels[1],
        input: [side, side],
        kernel: [k, k],
        stride: [s, s],
        padding: [k / 2, k / 2],
        groups: 1,
    }
}

fn prepared(shape: &ConvShape) -> Weight {
    Weight::new(shape, &vec![0.5; shape.weight_len()]).expect("a convolution of one group")
}

fn input(shape: &ConvShape) -> (Vec<f32>, Map) {
    let [height, width] = shape.input;
    let values = vec![0.5; shape.input_len()];
    let map = Map::from_planes(&values, [shape.batch, shape.in_channels, height, width]);
    (values, map)
}

fn convolutions(criterion: &mut Criterion) {
    let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
    let mut group = criterion.benchmark_group("blocked");
    group.sample_size(10).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_millis(700));
    for batch in [1, 8] {
        for (channels, side, k, s) in [
            ([3, 32], 224, 3, 2),
            ([3, 64], 224, 7, 2),
            ([64, 256], 56, 1, 1),
            ([256, 64], 56, 1, 1),
            ([512, 2048], 7, 1, 1),
            ([256, 512], 56, 1, 2),
            ([64, 128], 56, 3, 2),
            ([64, 64], 56, 3, 1),
            ([128, 128], 28, 3, 1),
            ([256, 256], 14, 3, 1),
            ([512, 512], 7, 3, 1),
        ] {
            let shape = layer(batch, channels, side, k, s);
            let ((values, map), weight) = (input(&shape), prepared(&shape));
            let source = match channels[0] {
                ..=4 => Source::Planes(&values),
                _ => Source::Blocked(&map),
            };
            let name = format!("{batch}x{}->{} {side} {k}x{k}/{s}", channels[0], channels[1]);
            group.throughput(Throughput::Elements(shape.macs() as u64));
            group.bench_function(name, |bencher| {
                bencher.iter(|| convolve(&shape, black_box(source), &weight, epilogue));
            });
        }
        for (channels, side, s) in [
            ([32, 64], 112, 1),
            ([64, 128], 112, 2),
            ([128, 128], 56, 1),
            ([256, 256], 28, 1),
            ([512, 512], 14, 1),
            ([1024, 1024], 7, 1),
        ] {
            let shape =
                ConvShape { groups: channels[0], ..layer(batch, [channels[0]; 2], side, 3, s) };
            let pointwise = layer(batch, channels, side / s, 1, 1);
            let (filters, weight) = (prepared(&shape), prepared(&pointwise));
            let (_, map) = input(&shape);
            let activation = Activation::Relu;
            let depthwise = Depthwise { shape, weight: &filters, bias: None, activation };
            let name = format!("{batch}x{}->{} {side} separable/{s}", channels[0], channels[1]);
            group.throughput(Throughput::Elements(pointwise.macs() as u64));
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let map = black_box(&map);
                    convolve_separable(&depthwise, map, channels[1], &weight, epilogue)
                });
            });
        }
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
