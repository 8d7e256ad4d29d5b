//! `dbb recalibrate`.

use std::collections::BTreeMap;
use std::fs;

use burn::module::Module;
use dbb_datasets::Batch;
use dbb_models::Reparameterize;
use dbb_training::inference::recalibrate::{Seen, recalibrate};
use serde_json::Value;

use crate::calls::*;
use crate::foreign::network;
use crate::setup::*;
use crate::support::{self, Array, assert_close, is_statistic};

/// `[batch, channels, ...]` to mean and unbiased variance of each channel.
fn moments(map: &Array) -> [Vec<f64>; 2] {
    let (batch, channels) = (map.shape[0], map.shape[1]);
    let size: usize = map.shape[2..].iter().product();
    let of_channel = |channel: usize| {
        let planes = (0..batch).map(move |n| (n * channels + channel) * size);
        let values: Vec<f64> = planes.flat_map(|at| map.data[at..at + size].to_vec()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (mean, squares / (values.len() - 1) as f64)
    };
    let (mean, var) = (0..channels).map(of_channel).unzip();
    [mean, var]
}

/// A 3x3 convolution of stride 1 over a border of zeros, as it is defined.
fn conv3x3(map: &Array, kernel: &Array) -> Array {
    let [batch, inputs, height, width] = map.shape[..] else { panic!("a map") };
    let outputs = kernel.shape[0];
    let mut out =
        Array::new(&[batch, outputs, height, width], vec![0.0; batch * outputs * height * width]);
    for (position, value) in out.data.iter_mut().enumerate() {
        let (x, y) = (position % width, position / width % height);
        let (output, n) =
            (position / (width * height) % outputs, position / (width * height * outputs));
        for (input, dy, dx) in
            (0..inputs).flat_map(|i| (0..3).flat_map(move |dy| (0..3).map(move |dx| (i, dy, dx))))
        {
            let (row, column) = ((y + dy).wrapping_sub(1), (x + dx).wrapping_sub(1));
            if row < height && column < width {
                let weight = kernel.data[((output * inputs + input) * 3 + dy) * 3 + dx];
                *value += weight * map.data[((n * inputs + input) * height + row) * width + column];
            }
        }
    }
    out
}

#[test]
fn recalibrated_statistics_are_averages_over_batches() {
    let (network, keys) = network(10);
    let before = keys.save(&network);
    let batches: Vec<Array> = [6, 6, 4]
        .into_iter()
        .zip(1..)
        .map(|(images, seed)| Array::random(&[images, 3, 8, 8], [-2.0, 2.0], seed).rounded())
        .collect();
    let as_batch = |map: &Array| {
        let images = map.data.iter().map(|&value| value as f32).collect();
        let shape = [map.shape[0], 3, 8, 8];
        let (labels, indices) = (vec![0; shape[0]], (0..shape[0]).collect());
        Ok(Batch { images, shape, labels, indices, mixed: None, skipped: Vec::new() })
    };
    let (new, seen) = recalibrate(&network, batches.iter().map(as_batch)).expect("statistics");
    assert_eq!(seen, Seen { batches: 3, images: 16 });
    assert!(support::is_on_inference_device(&new));

    // The stem's statistics, and those of the layer that reads what it makes of a batch.
    let tensor = |key: &str| Array::from(&before[key]);
    let mut expected = BTreeMap::<&str, Vec<f64>>::new();
    for batch in &batches {
        let stem = conv3x3(batch, &tensor("stem.conv.weight"));
        let [mean, var] = moments(&stem);
        let biased = (stem.data.len() / mean.len()) as f64;
        let (gamma, beta) = (tensor("stem.bn.gamma"), tensor("stem.bn.beta"));
        let normalised = stem.data.iter().enumerate().map(|(position, value)| {
            let channel = position / 64 % mean.len();
            let var = var[channel] * (biased - 1.0) / biased;
            let unit = (value - mean[channel]) / (var + 1e-5).sqrt();
            (unit * gamma.data[channel] + beta.data[channel]).max(0.0)
        });
        let map = Array::new(&stem.shape, normalised.collect());
        let [mean1, var1] = moments(&conv3x3(&map, &tensor("stage1.0.conv1.conv.weight")));
        let images = batch.shape[0] as f64;
        for (key, values) in [
            ("stem.bn.running_mean", mean),
            ("stem.bn.running_var", var),
            ("stage1.0.conv1.bn.running_mean", mean1),
            ("stage1.0.conv1.bn.running_var", var1),
        ] {
            let sum = expected.entry(key).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * images / 16.0);
        }
    }
    let after = keys.save(&new);
    for (key, values) in expected {
        let expected = Array::new(&[values.len()], values);
        assert_close(key, &Array::from(&after[key]), &expected, 1e-5, 1.0);
    }
    // Every norm has new statistics, and nothing else has changed; the network itself not at all.
    for (key, value) in &before {
        assert_eq!(after[key] == *value, !is_statistic(key), "{key}");
    }
    assert_eq!(keys.save(&network), before);
    new.clone().each_unit(&mut |unit| assert_eq!(unit.norms_mut()[0].momentum, 0.1));
    let single = new.valid();
    assert!(recalibrate(&single, std::iter::empty()).is_err(), "no image");
    // Where images are skipped a batch may keep one, of which nothing is learnt.
    let one_image = as_batch(&Array::new(&[1, 3, 8, 8], vec![0.5; 192]));
    let error = recalibrate(&single, [one_image].into_iter()).expect_err("one image");
    assert!(error.to_string().contains("at least 2 images"), "{error}");
}

#[test]
fn recalibrate_writes_a_network_beside_the_run() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.at("precise.safetensors");
    let bytes = fs::read(run.network()).expect("weights");
    let before = json(&["eval", &run.path]);
    let few = ["--batch-size", "16", "--batches", "4"];
    let result = json(&[&["recalibrate", &run.path, "--out", &out], &few[..]].concat());
    assert_eq!((&result["batches"], &result["images"]), (&Value::from(4), &Value::from(64)));
    assert_eq!(result["top1_before"], before["top1"]);
    assert_eq!(fs::read(run.network()).expect("weights"), bytes, "the run is left as it is");

    // Of the whole validation set, which the run has forty images of.
    let after = json(&["eval", &out, "--data", "sample"]);
    assert_eq!((&after["form"], &after["n"]), (&Value::from("train"), &Value::from(2000)));
    let again = run.folder.at("again.safetensors");
    let whole = ["recalibrate", &out, "--data", "sample", "--batches", "1", "--out", &again];
    assert_eq!(json(&whole)["loss_before"], after["loss"]);

    let deploy = run.deploy_weights();
    let folded = ["recalibrate", &deploy, "--data", "sample", "--out", &out];
    dbb(&folded).fails(1, &["is folded and has no batch norm left"]);
    let single = [&folded[..], &["--batch-size", "1"]].concat();
    dbb(&single).fails(1, &["--batch-size is 1"]);
}
