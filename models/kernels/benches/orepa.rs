//! The kernel of an OREPA block, forward and backward, for layers of ResNet-18 and a depthwise one.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dbb_kernels::orepa::{OrepaConstants, OrepaParts, OrepaShape};

fn values(len: usize, factor: usize) -> Vec<f32> {
    (0..len).map(|i| (i * factor % 1001) as f32 / 500.0 - 1.0).collect()
}

fn kernels(criterion: &mut Criterion) {
    for (outputs, groups) in [(64, 1), (256, 1), (512, 1), (512, 512)] {
        let per_group = outputs / groups;
        let internal = if groups == 1 { per_group } else { 2 };
        let shape = OrepaShape { outputs, per_group, taps: 9, groups, internal, expansion: 8 };
        let lengths = shape.lengths();
        let window = values(9, 3);
        let (prior, identity) = (values(outputs * 9, 5), values(lengths.first, 7));
        let constants = OrepaConstants { window: &window, prior: &prior, identity: &identity };
        let parts = lengths.clone().into_list().map(|len| values(len, 11));
        let slices = OrepaParts::from_list(parts.each_ref().map(Vec::as_slice));
        let grad = values(lengths.origin, 13);
        let mut kernel = vec![0.0; lengths.origin];

        let mut group = criterion.benchmark_group(format!("{outputs} outputs, {groups} groups"));
        group.sample_size(20).measurement_time(std::time::Duration::from_secs(1));
        group.bench_function("forward", |bencher| {
            bencher.iter(|| shape.forward(&slices, &constants, &mut kernel));
        });
        group.bench_function("backward", |bencher| {
            bencher.iter(|| black_box(shape.backward(&slices, &constants, &grad)));
        });
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
