//! `dbb bench`.

use serde_json::Value;

use crate::calls::*;

const BENCH_KEYS: [&str; 7] = [
    "images_per_second",
    "step_ms_median",
    "step_ms_min",
    "peak_rss_mib",
    "macs_per_image",
    "layers_fast",
    "layers_plain",
];

/// Measures two steps of a small network on 8x8 images.
fn bench(args: &[&str]) -> Value {
    let small = ["--arch", "resnet20", "--width", "0.25", "--batch", "4", "--res", "8"];
    json(&[&["bench"], args, &small, &["--steps", "2"]].concat())
}

#[test]
fn bench_measures_training_inference_and_the_loader() {
    for args in [
        &["train", "--block", "dbb"][..],
        &["train", "--block", "dbb", "--impl", "plain", "--form", "train", "--threads", "1"],
        &["infer", "--block", "dbb"],
        &["infer", "--block", "acb", "--form", "train"],
    ] {
        let result = bench(args);
        assert_eq!(keys(&result), BENCH_KEYS);
        let median = number(&result, "step_ms_median");
        assert!(median > 0.0 && number(&result, "step_ms_min") <= median, "{result}");
        assert!(close(number(&result, "images_per_second"), 4000.0 / median, 1e-9), "{result}");
        let layers = number(&result, "layers_fast") + number(&result, "layers_plain");
        assert_eq!(layers, 19.0, "{args:?}: {result}");
        if cfg!(target_os = "linux") {
            assert!(number(&result, "peak_rss_mib") > 1.0, "{result}");
        }
    }
    let loader = json(&["bench", "loader", "--batch", "8", "--res", "16", "--steps", "2"]);
    assert_eq!(keys(&loader), BENCH_KEYS);
    assert!(number(&loader, "images_per_second") > 0.0, "{loader}");
    assert!(loader["macs_per_image"].is_null() && loader["layers_plain"].is_null(), "{loader}");
    let cached = ["bench", "loader", "--batch", "8", "--res", "16", "--cache-mb", "1"];
    let text = dbb(&cached).succeeds().stdout;
    assert!(text.contains("images/s") && text.contains("peak memory"), "{text}");
}

/// Both lists of a profile add up to its total, which is the mean of the measured steps.
#[test]
fn a_profile_adds_up() {
    type Case<'a> = (&'a [&'a str], &'a [&'a str]);
    let cases: [Case; 3] = [
        (&["train", "--block", "dbb"], &["products", "norms", "moments", "loss", "optimizer"]),
        (&["train", "--block", "dbb", "--impl", "plain"], &["other work of layers", "optimizer"]),
        (&["infer"], &["products"]),
    ];
    for (args, kinds) in cases {
        let result = bench(&[args, &["--profile"]].concat());
        let profile = &result["profile"];
        let total = number(profile, "total_ms");
        let sum = |list: &str, keys: &[&str]| -> f64 {
            let entries = profile[list].as_array().expect("a list").iter();
            entries.map(|entry| keys.iter().map(|key| number(entry, key)).sum::<f64>()).sum()
        };
        assert!(close(sum("work", &["ms"]), total, 1e-9), "{profile}");
        let apart = number(profile, "outside_ms") + number(profile, "unattributed_ms");
        let layers = sum("layers", &["forward_ms", "backward_ms"]);
        assert!(close(layers + apart, total, 1e-9), "{profile}");
        assert!(close(sum("work", &["percent"]), 100.0, 1e-9), "{profile}");
        let work: Vec<&str> = profile["work"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|work| work["work"].as_str().expect("a name"))
            .collect();
        for kind in kinds {
            assert!(work.contains(kind), "no {kind} in {work:?}");
        }
        let backward = sum("layers", &["backward_ms"]);
        let is_attributed = args[0] == "train" && !args.contains(&"plain");
        assert_eq!(backward > 0.0, is_attributed, "{args:?}: {profile}");
        let names = profile["layers"].to_string();
        assert!(names.contains("stage1.0.conv1") && names.contains("linear"), "{names}");
    }
    let text =
        dbb(&["bench", "infer", "--arch", "mobilenet_v1", "--width", "0.25", "--batch", "1"]
            .into_iter()
            .chain(["--res", "32", "--steps", "1", "--profile"])
            .collect::<Vec<_>>());
    let text = text.succeeds().stdout;
    for part in ["depthwise and 1x1 in one", "not attributed", "total", "100.0 %"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(bench(&["infer"]).get("profile").is_none());
    let call =
        dbb(&["bench", "loader", "--batch", "8", "--res", "16", "--steps", "1", "--profile"]);
    call.succeeds().says(&["--profile unused"]);
}

#[test]
fn bench_counts_the_operations_of_the_measured_form() {
    let macs = |args: &[&str]| number(&bench(args), "macs_per_image");
    let deploy = macs(&["infer", "--block", "dbb"]);
    let summary = json(&["summary", "--arch", "resnet20", "--width", "0.25", "--res", "8"]);
    assert_eq!(deploy, number(&summary, "macs_deploy"));
    assert_eq!(macs(&["train", "--block", "base"]), deploy);
    assert_eq!(
        macs(&["train", "--block", "dbb"]),
        macs(&["infer", "--block", "dbb", "--form", "train"])
    );
    // Nine taps of the square kernel, three of each of the others; the classifier has 16 x 10.
    assert_eq!(macs(&["train", "--block", "acb"]), (deploy - 160.0) / 9.0 * 15.0 + 160.0);
    assert!(macs(&["train", "--block", "dbb"]) > 2.2 * deploy);
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let train = ["bench", "train", "--arch", "resnet20"];
    dbb(&[&train[..], &["--form", "deploy"]].concat()).fails(1, &["cannot be trained", "--form"]);
    dbb(&[&train[..], &["--width", "0"]].concat()).fails(1, &["width"]);
    dbb(&[&train[..], &["--classes", "0"]].concat()).fails(1, &["num_classes", "1 to 1000000"]);
    let single = ["--batch", "1", "--res", "4"];
    dbb(&[&train[..], &single].concat()).fails(1, &["stage3.0.conv1 is 1x1", "--batch or --res"]);
    dbb(&[&train[..], &["--device", "toaster"]].concat()).fails(1, &["toaster", "flex"]);
    dbb(&["bench", "loader", "--data", "no/such/folder"]).fails(1, &["no/such/folder"]);
}

/// Each step brings a batch of images of 3 MiB.
#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_a_step_is_reused_or_freed() {
    for what in ["infer", "train"] {
        let peak = |steps: &str| {
            let small = ["--arch", "resnet20", "--width", "0.25", "--batch", "64", "--res", "64"];
            let result = json(&[&["bench", what], &small[..], &["--steps", steps]].concat());
            number(&result, "peak_rss_mib")
        };
        let (few, many) = (peak("4"), peak("44"));
        assert!(many < few + 40.0, "{what}: {few} MiB after 6 steps, {many} after 46");
    }
}
