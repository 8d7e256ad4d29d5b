//! Blocks of an unknown network folded by their names and shapes: a made-up detector whose blocks
//! are those of the fixtures, against the kernels that the paper's own code folds them into.

use crate::support::fixture::{self, Fixture};
use crate::support::{Array, assert_close};
use burn::tensor::{DType, TensorData};
use dbb_models::BlockKind;
use dbb_models::weights::{
    BlockFold, FoldedBlock, StateDict, WeightsError, WeightsFile, random_values, unmarked_blocks,
    write_foreign,
};

fn blocks() -> Vec<Fixture> {
    let kinds = || BlockKind::ALL.into_iter().filter(|kind| kind.is_multi_branch());
    let named = |name: &str| kinds().any(|kind| name.starts_with(&format!("{kind}_k")));
    let files = fixture::files(&[".safetensors"]);
    let blocks: Vec<_> = files
        .iter()
        .filter(|path| named(&path.file_name().expect("a name").to_string_lossy()))
        .map(|path| Fixture::read(path))
        .collect();
    assert!(blocks.len() > 40, "the fixtures are there");
    blocks
}

fn module(name: &str) -> &'static str {
    match name.split_once("_k").expect("a kind and a kernel size") {
        ("dbb", _) => "dbb_reparam",
        ("acb", _) => "fused_conv",
        ("repvgg" | "qarepvgg", _) => "rbr_reparam",
        ("mobileone", _) => "reparam_conv",
        ("orepa", size) if size.starts_with('1') => "or1x1_reparam",
        ("orepa", _) => "orepa_reparam",
        (other, _) => panic!("a kind {other}"),
    }
}

/// The groups that a file name says: `_g2_`, `_dw8`.
fn groups(name: &str) -> usize {
    let number = |text: &str| {
        let (_, rest) = name.split_once(text)?;
        rest.split(['_', '.']).next()?.parse().ok()
    };
    number("_g").or_else(|| number("_dw")).expect("groups in the name")
}

/// What a detector holds beside its blocks, one tensor of every kind.
fn others() -> StateDict {
    let floats = TensorData::new(random_values(24, 1), [2, 3, 2, 2]);
    [
        ("backbone.stem.conv.weight", floats.clone()),
        ("backbone.stem.bn.num_batches_tracked", TensorData::new::<i64, [usize; 0]>(vec![7], [])),
        ("neck.upsample.weight", floats.clone().convert_dtype(DType::F16)),
        ("head.cls.weight", floats.clone().convert_dtype(DType::BF16)),
        ("head.anchors", floats.convert_dtype(DType::F64)),
        ("head.mask", TensorData::new(vec![1u8, 0, 255], [3])),
        // Modules with a name in common are no block.
        ("head.ver_conv.weight", TensorData::new(vec![1.0f32, 2.0], [2])),
    ]
    .map(|(key, data)| (key.to_string(), data))
    .into()
}

#[test]
fn every_block_of_a_detector_becomes_the_convolution_of_the_papers_code() {
    let (blocks, mut detector) = (blocks(), others());
    for (index, block) in blocks.iter().enumerate() {
        for (key, data) in block.state() {
            detector.insert(format!("neck.{index}.conv.{key}"), data);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("detector.safetensors");
    write_foreign(&path, &detector).expect("written");
    let file = WeightsFile::read(&path).expect("read");
    assert!(file.metadata.is_none() && file.tensors == detector, "a foreign file, bit for bit");

    // The identity of a QARepVGG block, which depends on its channels, leaves no tensor.
    let hidden = blocks.iter().enumerate().filter(|(_, block)| block.name.starts_with("qa"));
    let hidden = hidden.map(|(index, block)| (format!("neck.{index}.conv"), groups(&block.name)));
    let options = BlockFold { groups: hidden.collect(), ..BlockFold::default() };
    let (mut folded, list) = options.fold(file.tensors).expect("folded");
    assert_eq!(list.len(), blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let name = format!("neck.{index}.conv");
        for (tensor, expected) in [("weight", "equiv_kernel"), ("bias", "equiv_bias")] {
            let key = format!("{name}.{}.{tensor}", module(&block.name));
            let actual = folded.remove(&key).unwrap_or_else(|| panic!("no {key}"));
            assert_eq!(actual.dtype(), DType::F32, "{key}");
            let what = format!("{} {tensor}", block.name);
            assert_close(&what, &Array::from(&actual), &block.array(expected), 2e-5, 1.0);
        }
        let entry = list.iter().find(|block| block.name == name).expect("listed");
        assert!(entry.max_rel_diff > 0.0 && entry.max_rel_diff < 1e-5, "{entry:?}");
        match entry.kind {
            BlockKind::Dbb | BlockKind::Orepa | BlockKind::QaRepVgg => {
                assert_eq!(entry.groups, Some(groups(&block.name)), "{}", block.name);
            }
            // Where there is an identity, the shapes say.
            BlockKind::RepVgg | BlockKind::MobileOne => {
                let state = block.state();
                let identity = ["rbr_identity.weight", "rbr_skip.weight"];
                let identity = identity.iter().any(|key| state.contains_key(*key));
                let expected = identity.then(|| groups(&block.name));
                assert_eq!(entry.groups, expected, "{}", block.name);
            }
            kind => assert_eq!((kind, entry.groups), (BlockKind::Acb, None)),
        }
    }
    assert!(folded == others(), "everything else stays as it is");
}

fn block(name: &str) -> StateDict {
    Fixture::read(&fixture::folder().join(name)).state()
}

fn fold_one(state: StateDict, options: &BlockFold) -> Result<(StateDict, FoldedBlock), String> {
    let state = state.into_iter().map(|(key, data)| (format!("neck.{key}"), data)).collect();
    let (state, mut list) = options.fold(state).map_err(|error| error.to_string())?;
    Ok((state, list.remove(0)))
}

#[test]
fn a_block_without_a_prefix() {
    let state = block("dbb_k3_s1_dw6.safetensors");
    let (folded, list) = BlockFold::default().fold(state).expect("folded");
    assert_eq!(folded.keys().collect::<Vec<_>>(), ["dbb_reparam.bias", "dbb_reparam.weight"]);
    assert_eq!((list[0].name.as_str(), list[0].groups), ("", Some(6)));
}

/// Groups change what the fold is checked with, never its result.
#[test]
fn groups_where_shapes_leave_them_open() {
    let state = block("acb_k3_s1_g2_4to8.safetensors");
    let with = |rules: &[(&str, usize)]| BlockFold {
        groups: rules.iter().map(|(pattern, groups)| (pattern.to_string(), *groups)).collect(),
        ..BlockFold::default()
    };
    let (unasked, _) = fold_one(state.clone(), &with(&[])).expect("folded");
    let (asked, entry) = fold_one(state.clone(), &with(&[("*", 4), ("ne*", 2)])).expect("folded");
    assert!(asked == unasked && entry.groups == Some(2));
    let error = fold_one(state, &with(&[("*", 3)])).expect_err("3 groups of 8 channels");
    assert!(error.contains("block neck") && error.contains("3 groups"), "{error}");
    let state = block("dbb_k3_s1_g2_4to8.safetensors");
    let error = fold_one(state, &with(&[("neck", 4)])).expect_err("the shapes say 2");
    assert!(error.contains("its shapes have 2 groups, 4 were asked for"), "{error}");
}

/// The identity in a module of its own, as ports of the paper's code have it.
#[test]
fn the_identity_beside_its_weight() {
    let state = block("dbb_k3_s1_g1_4to4.safetensors");
    let mut port = state.clone();
    let weight = port.remove("dbb_1x1_kxk.idconv1.weight").expect("an identity-based weight");
    port.insert("dbb_1x1_kxk.idconv1.id_tensor".into(), weight.clone());
    port.insert("dbb_1x1_kxk.idconv1.conv.weight".into(), weight);
    let fold = |state| fold_one(state, &BlockFold::default()).expect("folded").0;
    assert!(fold(port) == fold(state));
}

#[test]
fn epsilon_enters_the_fold() {
    let state = block("dbb_k3_s1_dw6.safetensors");
    let scale = |epsilon: f64| {
        // With the KxK branch alone the fold is gamma / sqrt(var + epsilon) times the kernel.
        let mut state = state.clone();
        state.retain(|key, _| key.starts_with("dbb_origin"));
        let first = |key: &str| state[key].iter::<f64>().next().expect("a value");
        let norm = |tensor: &str| first(&format!("dbb_origin.bn.{tensor}"));
        let expected = norm("weight") / (norm("running_var") + epsilon).sqrt();
        let kernel = first("dbb_origin.conv.weight");
        let (folded, _) =
            fold_one(state.clone(), &BlockFold { epsilon, ..Default::default() }).unwrap();
        let actual = folded["neck.dbb_reparam.weight"].iter::<f64>().next().expect("a value");
        assert!((actual - expected * kernel).abs() < 1e-6, "{actual} {expected}");
        actual
    };
    assert!((scale(1e-5) - scale(0.5)).abs() > 1e-3);
}

#[test]
fn a_block_at_fault_is_named() {
    let good = block("dbb_k3_s2_g1_4to6.safetensors");
    let zeros = |shape: &[usize]| TensorData::zeros::<f32, _>(shape.to_vec());
    type Fault = fn(&mut StateDict, fn(&[usize]) -> TensorData);
    let faults: [(Fault, &str); 6] = [
        (|s, _| drop(s.remove("dbb_avg.avgbn.running_var")), "missing: neck.dbb_avg.avgbn.running"),
        (
            |s, z| drop(s.insert("dbb_1x1.conv.bias".into(), z(&[6]))),
            "unexpected: neck.dbb_1x1.conv",
        ),
        (|s, z| drop(s.insert("dbb_1x1.bn.bias".into(), z(&[5]))), "neck.dbb_1x1.bn.bias [5]"),
        (|s, z| drop(s.insert("dbb_origin.conv.weight".into(), z(&[6, 4, 3]))), "no kernel"),
        (|s, z| drop(s.insert("dbb_1x1_kxk.conv2.weight".into(), z(&[6, 3, 3, 3]))), "reads 3"),
        (|s, z| drop(s.insert("dbb_reparam.bias".into(), z(&[6]))), "its folded form"),
    ];
    for (fault, part) in faults {
        let mut state = good.clone();
        fault(&mut state, zeros);
        let error = fold_one(state, &BlockFold::default()).expect_err(part);
        assert!(error.contains("neck") && error.contains(part), "{error}");
    }
    let averages = good.into_iter().filter(|(key, _)| key.starts_with("dbb_avg")).collect();
    let error = fold_one(averages, &BlockFold::default()).expect_err("no kernel size");
    assert!(error.contains("no KxK branch"), "{error}");
}

/// A fold of NaN is no fold; what is no part of a block may hold it, such as a mask of infinities.
#[test]
fn a_block_of_finite_values_only() {
    let mut detector = others();
    detector.insert("head.mask".into(), TensorData::new(vec![f32::NEG_INFINITY, 0.0], [2]));
    for (key, value) in [
        ("dbb_origin.conv.weight", f32::NAN),
        ("dbb_1x1_kxk.bn1.bn.running_var", f32::INFINITY),
        ("dbb_avg.avgbn.bias", f32::NEG_INFINITY),
    ] {
        let mut state = block("dbb_k3_s1_g1_4to4.safetensors");
        let mut values: Vec<f32> = state[key].iter().collect();
        values[1] = value;
        let shape = state[key].shape().to_vec();
        state.insert(key.into(), TensorData::new(values, shape));
        let block = state.into_iter().map(|(key, data)| (format!("neck.{key}"), data));
        let state = detector.clone().into_iter().chain(block).collect();
        let error = BlockFold::default().fold(state).expect_err(key);
        let WeightsError::NonFinite { tensor, count, other_tensors, .. } = error else {
            panic!("{key}: {error}");
        };
        assert_eq!((tensor, count, other_tensors), (format!("neck.{key}"), 1, 0));
    }
    let good = block("dbb_k3_s1_g1_4to4.safetensors");
    detector.extend(good.into_iter().map(|(key, data)| (format!("neck.{key}"), data)));
    BlockFold::default().fold(detector).expect("the block is finite");
}

/// A half-precision block folds into half precision, or is refused.
#[test]
fn half_precision_stays_and_does_not_overflow() {
    let mut state = block("dbb_k3_s1_dw6.safetensors");
    let kernel = state["dbb_origin.conv.weight"].clone().convert_dtype(DType::F16);
    state.insert("dbb_origin.conv.weight".into(), kernel);
    let (folded, _) = fold_one(state.clone(), &BlockFold::default()).expect("folded");
    assert_eq!(folded["neck.dbb_reparam.weight"].dtype(), DType::F16);
    state.insert("dbb_origin.bn.weight".into(), TensorData::full([6], 1e30f32));
    let state = state.into_iter().map(|(key, data)| (format!("neck.{key}"), data)).collect();
    let error = BlockFold::default().fold(state).expect_err("too large for f16");
    assert!(matches!(error, WeightsError::Overflow { .. }), "{error}");
}

/// A convolution with its norm under some names, random, in a number type; and its fold in `f64`,
/// with `epsilon`, in the centre of a 3x3 window.
fn conv_norm(
    names: [&str; 2],
    shape: [usize; 4],
    seed: u64,
    epsilon: f64,
    dtype: DType,
) -> (StateDict, Vec<f64>, Vec<f64>) {
    let [outputs, inputs, size, _] = shape;
    let values = |count: usize, seed: u64| {
        let data = TensorData::new(random_values(count, seed), [count]).convert_dtype(dtype);
        (data.clone(), data.iter::<f64>().collect::<Vec<_>>())
    };
    let count = outputs * inputs * size * size;
    let (weight, w) = values(count, seed);
    let (gamma, g) = values(outputs, seed + 1);
    let (beta, b) = values(outputs, seed + 2);
    let (mean, m) = values(outputs, seed + 3);
    let (var, _) = values(outputs, seed + 4);
    let var: Vec<f32> = var.iter::<f32>().map(|v| v.abs() * 0.01).collect();
    let var = TensorData::new(var, [outputs]).convert_dtype(dtype);
    let v: Vec<f64> = var.iter::<f64>().collect();
    let scale = |o: usize| g[o] / (v[o] + epsilon).sqrt();
    let mut kernel = vec![0.0; outputs * inputs * 9];
    for (index, w) in w.iter().enumerate() {
        let (place, tap) = (index / (size * size), index % (size * size));
        let tap = if size == 1 { 4 } else { tap };
        kernel[place * 9 + tap] = w * scale(place / inputs);
    }
    let bias = (0..outputs).map(|o| b[o] - m[o] * scale(o)).collect();
    let weight = TensorData::from_bytes_vec(weight.as_bytes().to_vec(), shape, dtype);
    let [conv, norm] = names;
    let mut state = StateDict::from([
        (format!("{norm}.weight"), gamma),
        (format!("{norm}.bias"), beta),
        (format!("{norm}.running_mean"), mean),
        (format!("{norm}.running_var"), var),
        (format!("{norm}.num_batches_tracked"), TensorData::from([3i64])),
    ]);
    if !conv.is_empty() {
        state.insert(format!("{conv}.weight"), weight);
    }
    (state, kernel, bias)
}

/// RepConv of YOLOv7, where convolution and norm stand in a sequence, and of YOLOv9, with names that
/// others have, too; with the epsilon of both, in single and half precision, beside a DBB.
#[test]
fn repconv_of_detectors() {
    const EPSILON: f64 = 1e-3;
    let [outputs, inputs] = [6, 6];
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F16, 1e-3)] {
        for (folded, names) in [
            (
                "rbr_reparam",
                ["rbr_dense.0", "rbr_dense.1", "rbr_1x1.0", "rbr_1x1.1", "rbr_identity"],
            ),
            ("conv", ["conv1.conv", "conv1.bn", "conv2.conv", "conv2.bn", "bn"]),
        ] {
            let mut detector = others();
            for (key, data) in block("dbb_k3_s1_g1_4to4.safetensors") {
                detector.insert(format!("model.2.{key}"), data);
            }
            let parts = [
                conv_norm([names[0], names[1]], [outputs, inputs, 3, 3], 10, EPSILON, dtype),
                conv_norm([names[2], names[3]], [outputs, inputs, 1, 1], 20, EPSILON, dtype),
                conv_norm(["", names[4]], [outputs, 1, 1, 1], 30, EPSILON, dtype),
            ];
            let mut kernel = vec![0.0; outputs * inputs * 9];
            let mut bias = vec![0.0; outputs];
            for (part, (state, of_kernel, of_bias)) in parts.into_iter().enumerate() {
                detector.extend(state.into_iter().map(|(key, d)| (format!("model.75.{key}"), d)));
                if part == 2 {
                    // The norm of the input: its scale on the diagonal.
                    let norm = |key: &str| {
                        let key = format!("model.75.{}.{key}", names[4]);
                        detector[&key].iter::<f64>().collect::<Vec<_>>()
                    };
                    let (gamma, var) = (norm("weight"), norm("running_var"));
                    for o in 0..outputs {
                        kernel[(o * inputs + o) * 9 + 4] += gamma[o] / (var[o] + EPSILON).sqrt();
                    }
                } else {
                    kernel.iter_mut().zip(of_kernel).for_each(|(sum, k)| *sum += k);
                }
                bias.iter_mut().zip(of_bias).for_each(|(sum, b)| *sum += b);
            }
            let demanded = if folded == "conv" { vec!["model.7*".to_string()] } else { vec![] };
            let options =
                BlockFold { epsilon: EPSILON, unmarked: demanded, ..BlockFold::default() };
            let (mut tensors, list) = options.fold(detector.clone()).expect("folded");
            let kinds: Vec<_> = list.iter().map(|block| block.kind).collect();
            assert_eq!(kinds, [BlockKind::Dbb, BlockKind::RepVgg]);
            for (tensor, expected, shape) in
                [("weight", kernel, vec![outputs, inputs, 3, 3]), ("bias", bias, vec![outputs])]
            {
                let data = tensors.remove(&format!("model.75.{folded}.{tensor}")).expect(tensor);
                assert_eq!(data.dtype(), dtype);
                let expected = Array::new(&shape, expected);
                assert_close(folded, &Array::from(&data), &expected, tolerance, 1.0);
            }
            tensors.retain(|key, _| !key.starts_with("model.2."));
            assert!(tensors == others(), "everything else stays as it is");
            if folded == "conv" {
                assert_eq!(unmarked_blocks(&detector), ["model.75"]);
                let (_, list) = BlockFold::default().fold(detector).expect("folded");
                assert_eq!(list.len(), 1, "not without being asked");
            }
        }
    }
}

/// The blocks of RepVGG and MobileOne as timm names them, beside modules of other networks that have
/// names in common with them.
#[test]
fn blocks_of_timm() {
    let renamed = |key: &str, names: &[(&str, &str)]| {
        let (official, timm) = names.iter().find(|(name, _)| key.starts_with(name)).expect("known");
        format!("stages.1.{timm}{}", &key[official.len()..])
    };
    let repvgg = [("rbr_dense", "conv_kxk"), ("rbr_1x1", "conv_1x1"), ("rbr_identity", "identity")];
    let mobileone =
        [("rbr_conv", "conv_kxk"), ("rbr_scale", "conv_scale"), ("rbr_skip", "identity")];
    let mut visited = Vec::new();
    for block in blocks() {
        let (kind, names) = match block.name.split_once("_k").expect("a kind").0 {
            "repvgg" => (BlockKind::RepVgg, &repvgg),
            "mobileone" => (BlockKind::MobileOne, &mobileone),
            _ => continue,
        };
        visited.push(kind);
        let mut network = others();
        // MobileViT's 1x1 convolution is bare, and FastViT has norms that are called so.
        for key in ["conv_kxk.conv.weight", "conv_1x1.weight", "identity.weight"] {
            network.insert(format!("stages.2.{key}"), TensorData::zeros::<f32, _>([2, 2, 1, 1]));
        }
        let rest = network.clone();
        let state = block.state().into_iter();
        network.extend(state.map(|(key, data)| (renamed(&key, names), data)));
        let (mut folded, list) = BlockFold::default().fold(network).expect("folded");
        let kinds: Vec<_> = list.iter().map(|block| block.kind).collect();
        assert_eq!(kinds, [kind], "{}", block.name);
        for (tensor, expected) in [("weight", "equiv_kernel"), ("bias", "equiv_bias")] {
            let actual = folded.remove(&format!("stages.1.reparam_conv.{tensor}")).expect(tensor);
            let what = format!("{} {tensor}", block.name);
            assert_close(&what, &Array::from(&actual), &block.array(expected), 2e-5, 1.0);
        }
        assert!(folded == rest, "everything else stays as it is");
    }
    for kind in [BlockKind::RepVgg, BlockKind::MobileOne] {
        assert!(visited.contains(&kind), "there is a fixture of {kind}");
    }
}

/// The identity of a QARepVGG block leaves no tensor: stride and groups decide, and what was assumed is
/// told.
#[test]
fn an_identity_without_a_tensor() {
    let state = block("family/qarepvgg_k3_s1_g1_4to4.safetensors");
    let strides =
        |stride| BlockFold { strides: vec![("neck".into(), stride)], ..BlockFold::default() };
    let (assumed, entry) = fold_one(state.clone(), &BlockFold::default()).expect("folded");
    assert_eq!(entry.assumed_identity, Some(true));
    let (told, entry) = fold_one(state.clone(), &strides(1)).expect("folded");
    assert!(assumed == told && entry.assumed_identity.is_none());
    let (strided, entry) = fold_one(state.clone(), &strides(2)).expect("folded");
    assert!(entry.assumed_identity.is_none());
    // The outer norm's scale on the diagonal is what the identity adds.
    let kernel = |folded: &StateDict| Array::from(&folded["neck.rbr_reparam.weight"]);
    let values = |key: &str| state[key].iter::<f64>().collect::<Vec<_>>();
    let (gamma, var) = (values("bn.weight"), values("bn.running_var"));
    let mut expected = kernel(&strided);
    for channel in 0..4 {
        let scale = gamma[channel] / (var[channel] + 1e-5).sqrt();
        expected.data[(channel * 4 + channel) * 9 + 4] += scale;
    }
    assert_close("identity", &kernel(&told), &expected, 1e-6, 1.0);

    // Where a tensor tells, another stride contradicts it.
    let state = block("family/repvgg_k3_s1_g1_4to4.safetensors");
    let error = fold_one(state, &strides(2)).expect_err("an identity and a stride");
    assert!(error.contains("identity branch, which no stride of 2 has"), "{error}");

    let state = block("family/qarepvgg_k3_s1_g2_6to6.safetensors");
    let (_, entry) = fold_one(state, &BlockFold::default()).expect("folded");
    assert_eq!(entry.assumed_identity, Some(false), "two groups of it have one");
    let state = block("family/qarepvgg_k3_s2_g1_4to6.safetensors");
    let (_, entry) = fold_one(state, &BlockFold::default()).expect("folded");
    assert_eq!(entry.assumed_identity, None, "there cannot be one");
}
