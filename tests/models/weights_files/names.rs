//! The names of other code bases for a network's tensors.

use super::*;

/// The names of the paper's code, written out for each architecture and block.
#[test]
fn official_names_are_those_of_the_papers_code() {
    const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
    let with_norm = |conv: &str, norm: &str| {
        let norm = NORM.map(|tensor| format!("{norm}.{tensor}"));
        [vec![format!("{conv}.weight")], norm.to_vec()].concat()
    };
    // A layer that keeps the shape of its input has an identity.
    let block = |kind: BlockKind, depthwise: bool, same: bool, form: Form| match (kind, form) {
        (BlockKind::Base, Form::Train) => with_norm("conv", "bn"),
        (BlockKind::Acb, Form::Train) => ["square", "ver", "hor"]
            .map(|strip| with_norm(&format!("{strip}_conv"), &format!("{strip}_bn")))
            .concat(),
        (BlockKind::Dbb, Form::Train) => {
            // An internal width equal to the input's makes the 1x1 identity-based.
            let first = if depthwise { "conv1" } else { "idconv1" };
            let mut keys = vec![
                with_norm("dbb_origin.conv", "dbb_origin.bn"),
                with_norm(&format!("dbb_1x1_kxk.{first}"), "dbb_1x1_kxk.bn1.bn"),
                with_norm("dbb_1x1_kxk.conv2", "dbb_1x1_kxk.bn2"),
            ];
            if depthwise {
                keys.push(NORM.map(|tensor| format!("dbb_avg.avgbn.{tensor}")).to_vec());
            } else {
                keys.push(with_norm("dbb_1x1.conv", "dbb_1x1.bn"));
                keys.push(with_norm("dbb_avg.conv", "dbb_avg.bn.bn"));
                keys.push(NORM.map(|tensor| format!("dbb_avg.avgbn.{tensor}")).to_vec());
            }
            keys.concat()
        }
        (BlockKind::RepVgg, Form::Train) => {
            let mut keys = vec![
                with_norm("rbr_dense.conv", "rbr_dense.bn"),
                with_norm("rbr_1x1.conv", "rbr_1x1.bn"),
            ];
            if same {
                keys.push(NORM.map(|tensor| format!("rbr_identity.{tensor}")).to_vec());
            }
            keys.concat()
        }
        (BlockKind::MobileOne, Form::Train) => {
            let copies = (0..4).map(|copy| {
                with_norm(&format!("rbr_conv.{copy}.conv"), &format!("rbr_conv.{copy}.bn"))
            });
            let mut keys: Vec<_> = copies.collect();
            keys.push(with_norm("rbr_scale.conv", "rbr_scale.bn"));
            if same {
                keys.push(NORM.map(|tensor| format!("rbr_skip.{tensor}")).to_vec());
            }
            keys.concat()
        }
        (BlockKind::QaRepVgg, Form::Train) => {
            [with_norm("rbr_dense.conv", "rbr_dense.bn"), with_norm("rbr_1x1", "bn")].concat()
        }
        (BlockKind::Orepa, Form::Train) => {
            let names = [
                "origin",
                "avg_conv",
                "avg_avg",
                "pfir_conv",
                "prior",
                "1x1_kxk_idconv1",
                "1x1_kxk_conv2",
                "1x1",
                "gconv_dw",
                "gconv_pw",
            ];
            let norm = NORM.map(|tensor| format!("bn.{tensor}"));
            let others = ["vector", "id_tensor"].map(str::to_string);
            let weights = names.map(|name| format!("weight_orepa_{name}"));
            [&weights[..], &others, &norm].concat()
        }
        (kind, Form::Deploy) => {
            let module = match kind {
                BlockKind::Base => "conv",
                BlockKind::Dbb => "dbb_reparam",
                BlockKind::Acb => "fused_conv",
                BlockKind::RepVgg | BlockKind::QaRepVgg => "rbr_reparam",
                BlockKind::MobileOne => "reparam_conv",
                BlockKind::Orepa => "orepa_reparam",
            };
            ["weight", "bias"].map(|tensor| format!("{module}.{tensor}")).to_vec()
        }
    };

    /// A layer's name, kernel size, and whether it is depthwise.
    type Layer = (String, usize, bool);
    let resnet = |stem: usize, depths: [usize; 4], bottleneck: bool| -> Vec<Layer> {
        let mut layers = vec![("stage0.conv1".to_string(), stem, false)];
        for (stage, depth) in depths.into_iter().enumerate() {
            for index in 0..depth {
                let name = format!("stage{}.{index}", stage + 1);
                let kernels: &[usize] = if bottleneck { &[1, 3, 1] } else { &[3, 3] };
                for (conv, kernel) in kernels.iter().enumerate() {
                    layers.push((format!("{name}.conv{}", conv + 1), *kernel, false));
                }
                if index == 0 && (stage > 0 || bottleneck) {
                    layers.push((format!("{name}.shortcut"), 1, false));
                }
            }
        }
        layers
    };
    let mut mobilenet: Vec<Layer> = vec![("conv1".into(), 3, false)];
    for index in 0..13 {
        mobilenet.push((format!("stem.{index}.depthwise"), 3, true));
        mobilenet.push((format!("stem.{index}.pointwise"), 1, false));
    }

    let repvgg = |depths: [usize; 4]| {
        let mut layers: Vec<Layer> = vec![("stage0".into(), 3, false)];
        for (stage, depth) in depths.into_iter().enumerate() {
            layers.extend((0..depth).map(|i| (format!("stage{}.{i}", stage + 1), 3, false)));
        }
        layers
    };

    let kernels = [11, 5, 3, 3, 3].into_iter().enumerate();
    let alexnet = kernels.map(|(i, kernel)| (format!("stem.conv{}", i + 1), kernel, false));
    let alexnet: Vec<Layer> = alexnet.collect();

    for (arch, layers) in [
        (Arch::ResNet18, resnet(7, [2, 2, 2, 2], false)),
        (Arch::ResNet34, resnet(7, [3, 4, 6, 3], false)),
        (Arch::ResNet50, resnet(7, [3, 4, 6, 3], true)),
        (Arch::ResNet101, resnet(7, [3, 4, 23, 3], true)),
        (Arch::ResNet152, resnet(7, [3, 8, 36, 3], true)),
        (Arch::ResNet18Cifar, resnet(3, [2, 2, 2, 2], false)),
        (Arch::MobileNetV1, mobilenet),
        (Arch::RepVggA0, repvgg([2, 4, 14, 1])),
        (Arch::RepVggB1, repvgg([4, 6, 16, 1])),
        (Arch::AlexNet, alexnet),
    ] {
        for kind in BlockKind::ALL {
            for form in [Form::Train, Form::Deploy] {
                let model = config(arch, kind);
                let network = model.init(form, &device()).expect("a network");
                let state = official_state(&model, &network);
                let units: Vec<_> = network
                    .units()
                    .into_iter()
                    .map(|(name, unit)| (name, unit.spec().keeps_shape()))
                    .collect();
                let keys = layers.iter().flat_map(|(name, kernel, depthwise)| {
                    let plain = !matches!(kernel, 3 | 5);
                    let kind = if plain { BlockKind::Base } else { kind };
                    let native = match name.as_str() {
                        "stage0.conv1" | "conv1" | "stage0" => "stem".to_string(),
                        name if arch == Arch::AlexNet => name.replace("stem.", ""),
                        name => name.replace("stem.", "blocks."),
                    };
                    let unit = units.iter().find(|unit| unit.0 == native);
                    let same = unit.is_some_and(|unit| unit.1);
                    block(kind, *depthwise, same, form)
                        .into_iter()
                        .map(move |key| format!("{name}.{key}"))
                });
                let linear: &[&str] = match arch {
                    Arch::AlexNet => &["linear1", "linear2", "linear3"],
                    _ => &["linear"],
                };
                let tensors = |layer: &&str| ["weight", "bias"].map(|t| format!("{layer}.{t}"));
                let mut expected: Vec<_> = keys.chain(linear.iter().flat_map(tensors)).collect();
                expected.sort();
                let actual: Vec<_> = state.keys().cloned().collect();
                assert_eq!(actual, expected, "{arch} {kind} {form}");
                // PyTorch keeps the classifier's weight as [classes, features].
                let classifier = format!("{}.weight", linear[linear.len() - 1]);
                assert_eq!(state[&classifier].shape()[0], 10, "{arch} {kind} {form}");
            }
        }
    }
}

#[test]
fn a_dialect_without_names_for_an_architecture() {
    for arch in Arch::ALL {
        let model = ModelConfig { width: 0.25, ..config(arch, BlockKind::Base) };
        let network = model.init(Form::Deploy, &device()).expect("a network");
        let keys = KeyMap::new(Dialect::Official, &model, &network);
        assert_eq!(keys.is_ok(), Dialect::Official.supports(arch));
        if let Err(error) = keys {
            let message = error.to_string();
            for word in [arch.name(), "official", "it has native"] {
                assert!(message.contains(word), "\"{message}\" does not mention {word}");
            }
        }
    }
}

/// Names of Apple's code, which counts both convolutions of a layer and has the squeeze-and-excitation
/// in their modules.
#[test]
fn official_names_of_mobileone() {
    let model = ModelConfig { width: 0.125, ..config(Arch::MobileOneS4, BlockKind::MobileOne) };
    let state = official_state(&model, &network(&model, Form::Train));
    for (name, shape) in [
        ("stage0.rbr_conv.0.conv.weight", vec![8, 3, 3, 3]),
        ("stage1.1.rbr_scale.bn.weight", vec![]),
        ("stage1.0.rbr_scale.bn.weight", vec![8]),
        ("stage1.2.rbr_conv.0.conv.weight", vec![24, 1, 3, 3]),
        ("stage1.3.rbr_skip.running_var", vec![24]),
        ("stage3.9.se.reduce.weight", vec![]),
        ("stage3.10.se.reduce.weight", vec![7, 112, 1, 1]),
        ("stage3.19.rbr_conv.0.conv.weight", vec![112, 112, 1, 1]),
        ("stage3.19.se.expand.bias", vec![112]),
        ("stage4.0.se.reduce.weight", vec![7, 112, 1, 1]),
        ("stage4.1.se.reduce.bias", vec![16]),
        ("linear.weight", vec![10, 256]),
    ] {
        let found = state.get(name).map(|data| data.shape().to_vec());
        // No shape: 1x1 blocks have no scale branch, the first layers no squeeze-and-excitation.
        assert_eq!(found, (!shape.is_empty()).then_some(shape), "{name}");
    }
    let deploy = official_state(&model, &network(&model, Form::Deploy));
    assert!(deploy.contains_key("stage4.1.reparam_conv.bias"));
}
