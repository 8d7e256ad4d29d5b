//! Batch norm, pools and moments, against the speed of the memory: a copy of a map and
//! `a = b + c` of maps.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dbb_kernels::Activation;
use dbb_kernels::norm::{self, Gate, Gradients};
use dbb_kernels::{ConvShape, moments, pool};
use rayon::prelude::*;

const MAPS: [[usize; 3]; 3] = [[64, 64, 1024], [64, 256, 64], [16, 64, 112 * 112]];

fn map(len: usize, factor: usize) -> Vec<f32> {
    (0..len).map(|i| (i * factor % 1001) as f32 / 500.0 - 1.0).collect()
}

fn batch_norm(criterion: &mut Criterion) {
    for dims in MAPS {
        let [batch, channels, positions] = dims;
        let len = dims.iter().product();
        let (o, dy, second) = (map(len, 7), map(len, 13), map(len, 17));
        let (mut y, mut d_o, mut d_second) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
        let (scale, shift) = (vec![1.1; 2 * channels], vec![0.1; channels]);
        let mut group = criterion.benchmark_group(format!("{dims:?}"));
        group.sample_size(20).warm_up_time(std::time::Duration::from_millis(300));
        group.measurement_time(std::time::Duration::from_secs(1));
        let mut bench = |name: &str, maps: usize, run: &mut dyn FnMut()| {
            group.throughput(Throughput::Bytes((maps * len * 4) as u64));
            group.bench_function(name, |bencher| bencher.iter(&mut *run));
        };
        bench("copy", 2, &mut || {
            let chunk = len / rayon::current_num_threads();
            let parts = d_o.par_chunks_mut(chunk).zip(o.par_chunks(chunk));
            parts.for_each(|(to, from)| to.copy_from_slice(from));
        });
        bench("add", 3, &mut || {
            let chunk = len / rayon::current_num_threads();
            let parts =
                d_o.par_chunks_mut(chunk).zip(o.par_chunks(chunk).zip(dy.par_chunks(chunk)));
            parts.for_each(|(to, (a, b))| {
                to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = a + b);
            });
        });
        bench("statistics", 1, &mut || {
            black_box(norm::statistics(&o, dims));
        });
        bench("apply, ReLU", 2, &mut || {
            norm::apply(&[&o], &scale[..channels], &shift, None, Activation::Relu, dims, &mut y);
        });
        bench("apply, residual, ReLU", 3, &mut || {
            norm::apply(
                &[&o],
                &scale[..channels],
                &shift,
                Some(&second),
                Activation::Relu,
                dims,
                &mut y,
            );
        });
        bench("apply to two maps, ReLU", 3, &mut || {
            norm::apply(&[&o, &second], &scale, &shift, None, Activation::Relu, dims, &mut y);
        });
        let mean = vec![0.01; 2 * channels];
        let inv_std = vec![2.0; 2 * channels];
        let gate = Gate::Values(Activation::Relu, &y);
        bench("reduce, ReLU", 3, &mut || {
            black_box(norm::reduce(&[&o], &mean[..channels], &dy, gate, dims));
        });
        bench("reduce two maps, ReLU", 4, &mut || {
            black_box(norm::reduce(&[&o, &second], &mean, &dy, gate, dims));
        });
        let sums = norm::reduce(&[&o], &mean[..channels], &dy, gate, dims);
        let (gamma, count) = (&scale[..channels], batch * positions);
        let one =
            Gradients::new(gamma, &mean[..channels], &inv_std[..channels], &[false], &sums, count);
        bench("backward, ReLU", 4, &mut || {
            norm::backward_input(&[&o], &one, &dy, gate, dims, &mut [&mut d_o], None);
        });
        bench("backward, residual, ReLU", 5, &mut || {
            let residual = Some(d_second.as_mut_slice());
            norm::backward_input(&[&o], &one, &dy, gate, dims, &mut [&mut d_o], residual);
        });
        let again = Gate::Affine { activation: Activation::Relu, scale: gamma, shift: &shift };
        bench("reduce, ReLU found again", 2, &mut || {
            black_box(norm::reduce(&[&o], &mean[..channels], &dy, again, dims));
        });
        bench("backward, ReLU found again", 3, &mut || {
            norm::backward_input(&[&o], &one, &dy, again, dims, &mut [&mut d_o], None);
        });
        let sums = norm::reduce(&[&o, &second], &mean, &dy, gate, dims);
        let two = Gradients::new(&scale, &mean, &inv_std, &[false; 2], &sums, count);
        bench("backward of two maps, ReLU", 6, &mut || {
            let outputs = &mut [&mut d_o[..], &mut d_second[..]];
            norm::backward_input(&[&o, &second], &two, &dy, gate, dims, outputs, None);
        });
        group.finish();
    }
}

fn pools(criterion: &mut Criterion) {
    for (batch, channels, side, stride) in
        [(64, 64, 32, 1), (64, 256, 8, 1), (64, 64, 32, 2), (16, 64, 112, 2), (16, 128, 56, 1)]
    {
        let shape = ConvShape {
            batch,
            in_channels: channels,
            out_channels: channels,
            input: [side; 2],
            kernel: [3; 2],
            stride: [stride; 2],
            padding: [1; 2],
            groups: channels,
        };
        let mut x = map(shape.input_len(), 7);
        let mut y = map(shape.output_len(), 13);
        let mut argmax = vec![0; y.len()];
        let mut group = criterion.benchmark_group(format!("pool {:?}/{stride}", shape.input));
        group.sample_size(20).warm_up_time(std::time::Duration::from_millis(300));
        group.measurement_time(std::time::Duration::from_secs(1));
        group.throughput(Throughput::Bytes(((x.len() + y.len()) * 4) as u64));
        group.bench_function("average", |b| b.iter(|| pool::average(&shape, &x, &mut y)));
        group.bench_function("average, backward", |b| {
            b.iter(|| pool::average_backward(&shape, &y, &mut x, false));
        });
        group.bench_function("max", |b| b.iter(|| pool::max(&shape, &x, &mut y, &mut argmax)));
        group.bench_function("max, backward", |b| {
            b.iter(|| pool::max_backward(&shape, &y, &argmax, &mut x));
        });
        group.finish();
    }
}

fn covariance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("covariance");
    group.sample_size(20).warm_up_time(std::time::Duration::from_millis(300));
    group.measurement_time(std::time::Duration::from_secs(1));
    for dims in [[64, 64, 1024], [64, 128, 256], [64, 256, 64], [64, 512, 16], [16, 64, 56 * 56]] {
        let [batch, channels, positions] = dims;
        let (x, shift) = (map(dims.iter().product(), 7), vec![0.1; channels]);
        // Operations, not elements: half of the products are mirrored.
        group.throughput(Throughput::Elements((batch * positions * channels * channels) as u64));
        group.bench_function(format!("{dims:?}"), |b| {
            b.iter(|| moments::covariance(&x, &shift, dims));
        });
    }
    group.finish();
}

criterion_group!(benches, batch_norm, pools, covariance);
criterion_main!(benches);
