//! `dbb summary`.

use crate::calls::*;

#[test]
fn summary_knows_the_published_counts() {
    // Parameters as torchvision has them (MobileNetV1: its table 8 rounds to 4.2 million);
    // channels of all norms, each of which folds a scale and a shift into one bias.
    for (arch, params, channels) in [
        ("resnet18", 11_689_512, 4_800),
        ("resnet34", 21_797_672, 8_512),
        ("resnet50", 25_557_032, 26_560),
        ("mobilenet_v1", 4_231_976, 10_944),
    ] {
        let summary = json(&["summary", "--arch", arch, "--block", "base"]);
        let total = |key| number(&summary, key) as usize;
        assert_eq!(total("params_train"), params, "{arch}");
        assert_eq!(total("params_deploy"), params - channels, "{arch}");
        let layers = summary["layers"].as_array().expect("layers");
        for key in ["params_train", "params_deploy", "macs_deploy"] {
            let sum: f64 = layers.iter().map(|layer| number(layer, key)).sum();
            assert_eq!(sum as usize, total(key), "{arch}: {key}");
        }
    }
    let macs = number(&json(&["summary", "--arch", "resnet18", "--block", "base"]), "macs_deploy");
    assert_eq!(macs, 1_814_073_344.0);
}

#[test]
fn summary_refuses_sizes_beyond_all_use() {
    let summary = ["summary", "--arch", "resnet20"];
    for (flag, option) in [("--classes", "num_classes"), ("--channels", "in_channels")] {
        for size in ["1000000000000", "18446744073709551615"] {
            dbb(&[&summary[..], &[flag, size]].concat()).fails(1, &[option, size, "expected 1 to"]);
        }
    }
}

/// From the paper's figure 3: four branches, six norms, one of them inside each of two branches.
fn dense_block(inputs: usize, outputs: usize) -> usize {
    let origin = 9 * inputs * outputs + 2 * outputs;
    let pointwise = inputs * outputs + 2 * outputs;
    let sequence = inputs * inputs + 2 * inputs + 9 * inputs * outputs + 2 * outputs;
    let average = inputs * outputs + 4 * outputs;
    origin + pointwise + sequence + average
}

#[test]
fn summary_counts_what_a_block_is_made_of() {
    let mut convolutions = vec![(3, 16)];
    convolutions.extend([(16, 16); 6]);
    convolutions.push((16, 32));
    convolutions.extend([(32, 32); 5]);
    convolutions.push((32, 64));
    convolutions.extend([(64, 64); 5]);
    let classifier = 65 * 10;
    let sum = |count: &dyn Fn(usize, usize) -> usize| -> usize {
        convolutions.iter().map(|&(inputs, outputs)| count(inputs, outputs)).sum::<usize>()
            + classifier
    };
    let summary = json(&["summary", "--arch", "resnet20"]);
    let fields =
        ["arch", "block", "width", "resolution", "params_train", "params_deploy", "macs_deploy"];
    assert_eq!(keys(&summary), [&fields[..], &["layers"]].concat());
    assert_eq!(summary["block"], "dbb");
    assert_eq!(number(&summary, "params_train") as usize, sum(&dense_block));
    assert_eq!(number(&summary, "params_deploy") as usize, sum(&|i, o| 9 * i * o + o));
    let base = json(&["summary", "--arch", "resnet20", "--block", "base"]);
    assert_eq!(number(&base, "params_train") as usize, sum(&|i, o| 9 * i * o + 2 * o));
    assert_eq!(base["params_deploy"], summary["params_deploy"]);

    let text = dbb(&["summary", "--arch", "resnet20", "--res", "16"]).succeeds();
    assert_eq!(text.stdout.lines().count(), 1 + 19 + 1 + 1, "{}", text.all());
    assert!(text.stdout.contains("stage3.2.conv2"), "{}", text.all());
    dbb(&["summary", "--arch", "resnet20", "--width", "0"]).fails(1, &["width", "above 0"]);
}
