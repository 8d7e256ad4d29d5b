//! Keys that do not fit a network are named, and the network that they do fit.

use super::*;

/// Loading names every key at fault, and changes nothing.
#[test]
fn keys_that_do_not_fit() {
    let model = config(Arch::ResNet18, BlockKind::Dbb);
    let network = network(&model, Form::Train);
    for dialect in [Dialect::Native, Dialect::Official] {
        let keys = KeyMap::new(dialect, &model, &network).expect("names");
        let good = keys.save(&network);
        let (first, last) = (good.keys().next().expect("a key"), "linear.weight");
        let zeros = |shape: &[usize]| TensorData::zeros::<f32, _>(shape.to_vec());

        let mut bad = good.clone();
        bad.remove(first);
        bad.insert("stage7.conv".into(), zeros(&[3]));
        bad.insert(last.into(), zeros(&[7, 9]));
        let error = keys.load(network.clone(), &bad).expect_err("three keys at fault");
        let WeightsError::Keys { missing, unexpected, misshapen, .. } = &error else {
            panic!("another error: {error}")
        };
        assert_eq!((missing, unexpected), (&vec![first.clone()], &vec!["stage7.conv".into()]));
        assert!(misshapen.len() == 1 && misshapen[0].contains("linear.weight [7, 9]"));
        for word in [first, "stage7.conv", "[7, 9]", "1 missing", "1 unexpected", "1 misshapen"] {
            assert!(error.to_string().contains(word), "\"{error}\" does not mention {word}");
        }

        // Each fault alone is one, too.
        let faults: [&dyn Fn(&mut StateDict); 4] = [
            &|state| drop(state.remove(first)),
            &|state| drop(state.insert("stage7.conv".into(), zeros(&[3]))),
            &|state| drop(state.insert(last.into(), zeros(&[7, 9]))),
            // As many values, in another shape.
            &|state| {
                let shape = good[last].shape();
                drop(state.insert(last.into(), zeros(&[shape[1], shape[0], 1])))
            },
        ];
        for (index, fault) in faults.iter().enumerate() {
            let mut bad = good.clone();
            fault(&mut bad);
            let result = keys.load(network.clone(), &bad);
            assert!(matches!(result, Err(WeightsError::Keys { .. })), "{dialect}: fault {index}");
        }
        assert!(
            native_state(&model, &network)
                == native_state(
                    &model,
                    &keys.load(network.clone(), &good).expect("the good state")
                )
        );
    }
}

/// A misspelt name is told beside the name it is like.
#[test]
fn the_nearest_name_is_told() {
    let model = small_model();
    let network = network(&model, Form::Deploy);
    let keys = KeyMap::new(Dialect::Official, &model, &network).expect("names");
    let mut state = keys.save(&network);
    let moved = state.remove("stage2.0.conv1.conv.weight").expect("a kernel");
    state.insert("stage2.0.convl.conv.weight".into(), moved);
    let error = keys.load(network, &state).expect_err("another name").to_string();
    let hint = "stage2.0.conv1.conv.weight may be what the file calls stage2.0.convl.conv.weight";
    assert!(error.contains(hint), "{error}");
}

/// A foreign file whose keys do not fit names the file and the keys.
#[test]
fn a_foreign_file_of_another_network() {
    let folder = TempDir::new().expect("a folder");
    let (path, model) = small_file(&folder, Written::Safetensors(Dialect::Official));
    let file = WeightsFile::read(&path).expect("the file");
    for dialect in [Dialect::Official, Dialect::Native] {
        let (path, model) = small_file(&folder, Written::Safetensors(dialect));
        let file = WeightsFile::read(&path).expect("the file");
        for (other, words) in [
            (
                ModelConfig { num_classes: 11, ..model.clone() },
                ["2 misshapen", "of the file has 10 classes, that of the network 11"],
            ),
            (ModelConfig { width: 0.125, ..model.clone() }, ["misshapen", "another width"]),
        ] {
            let error = adopt(&file, &other, LoadOptions::default(), &device());
            let error = error.expect_err("another network").to_string();
            for word in words {
                assert!(error.contains(word), "{dialect}: \"{error}\" does not mention {word}");
            }
        }
    }
    let looks = "this looks like a folded resnet18-cifar with block base and 10 classes\n";
    for (other, words) in [
        (ModelConfig { arch: Arch::MobileNetV1, ..model.clone() }, ["missing", "unexpected"]),
        (ModelConfig { arch: Arch::ResNet34, ..model.clone() }, ["missing", "stage1.2.conv1"]),
        (ModelConfig { arch: Arch::ResNet34, ..model.clone() }, [looks, "32 missing"]),
        (ModelConfig { block: BlockKind::Dbb, ..model }, [looks, "dbb_reparam.weight"]),
    ] {
        let error = adopt(&file, &other, LoadOptions::default(), &device())
            .expect_err("another network")
            .to_string();
        for word in words.into_iter().chain([path.to_str().expect("a path")]) {
            assert!(error.contains(word), "\"{error}\" does not mention {word}");
        }
    }
}

/// A network of the same family of another depth, with another block and another number of
/// classes, is named before the keys.
#[test]
fn a_foreign_file_of_another_depth_is_recognised() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let asked = |arch| ModelConfig { width: 0.25, ..config(arch, BlockKind::Base) };
    for (held, keys, expected) in [
        (asked(Arch::ResNet32), Dialect::Akamaster, "resnet32 with block base and 10 classes"),
        (
            ModelConfig { num_classes: 7, block: BlockKind::Dbb, ..asked(Arch::ResNet110) },
            Dialect::Native,
            "resnet110 with block dbb and 7 classes",
        ),
        (asked(Arch::ResNet18), Dialect::Torchvision, "resnet18 with block base and 10 classes"),
        // Its convolutions have biases there.
        (asked(Arch::Vgg16), Dialect::Torchvision, "vgg16 with block base and 10 classes"),
        (
            ModelConfig { width: 1.0, ..asked(Arch::ResNet32) },
            Dialect::Akamaster,
            "resnet32 with block base and 10 classes",
        ),
    ] {
        let network = network(&held, Form::Train);
        let state = KeyMap::new(keys, &held, &network).expect("names").save(&network);
        write_foreign(&path, &state).expect("written");
        let file = WeightsFile::read(&path).expect("read");
        let asked = asked(Arch::ResNet20);
        let error = adopt(&file, &asked, LoadOptions::default(), &device()).expect_err(expected);
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        assert!(first.ends_with(&format!("; this looks like {expected}")), "{message}");
        assert!(message.contains(" more"), "long lists are cut: {message}");
    }
    // Names of no network of the zoo.
    let state = StateDict::from([("neck.weight".to_string(), TensorData::zeros::<f32, _>([3]))]);
    write_foreign(&path, &state).expect("written");
    let file = WeightsFile::read(&path).expect("read");
    let error = adopt(&file, &asked(Arch::ResNet20), LoadOptions::default(), &device());
    assert!(!error.expect_err("another network").to_string().contains("looks like"));
}

/// An error names the dialect that was asked for, and those that there are.
#[test]
fn a_dialect_that_an_architecture_does_not_have() {
    for (arch, dialect, expected) in [
        (Arch::ResNet20, Dialect::Timm, "resnet20 has no timm names; it has native, akamaster"),
        (
            Arch::ResNet18,
            Dialect::Akamaster,
            "resnet18 has no akamaster names; it has native, official, torchvision, timm",
        ),
        (
            Arch::MobileNetV2,
            Dialect::Official,
            "mobilenet_v2 has no official names; it has native, torchvision, timm",
        ),
    ] {
        let model = ModelConfig { width: 0.25, ..config(arch, BlockKind::Base) };
        let network = network(&model, Form::Train);
        let error = KeyMap::new(dialect, &model, &network).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert!(!dialect.supports(arch));
    }
}
