//! What each branch adds to a folded kernel: the branches of the fixtures one by one against their
//! definition, and their sum against the kernel that the papers' own code folds.

use crate::support::fixture::{self, Fixture};
use crate::support::{Array, assert_close, reference};
use burn::tensor::TensorData;
use dbb_models::BlockKind;
use dbb_models::blocks::{BranchPart, ConvSpec};
use dbb_models::weights::{BlockFold, StateDict};

/// Rows of OREPA's `vector`.
const OREPA: [&str; 6] = ["kxk", "1x1_avg", "1x1_frequency", "1x1_kxk", "1x1", "depthwise_1x1"];
const OREPA_POINTWISE: [&str; 2] = ["1x1", "1x1_1x1"];

/// The state dict of a block with one branch alone; `None` where other tensors than its own decide
/// what the definition computes.
fn alone(kind: BlockKind, state: &StateDict, part: &str) -> Option<StateDict> {
    let (name, copy) = part.split_once(' ').unwrap_or((part, "1"));
    let copy = copy.parse::<usize>().expect("a number") - 1;
    let prefix = match (kind, name) {
        (BlockKind::Dbb, "kxk") => "dbb_origin.".into(),
        (BlockKind::Dbb, "1x1") => "dbb_1x1.".into(),
        (BlockKind::Dbb, "1x1_kxk") => "dbb_1x1_kxk.".into(),
        (BlockKind::Dbb, "1x1_avg" | "avg") => "dbb_avg.".into(),
        (BlockKind::Acb, "kxk") => "square_".into(),
        (BlockKind::Acb, "kx1") => "ver_".into(),
        (BlockKind::Acb, "1xk") => "hor_".into(),
        (BlockKind::RepVgg, "kxk") => "rbr_dense.".into(),
        (BlockKind::RepVgg, "1x1") => "rbr_1x1.".into(),
        (BlockKind::RepVgg, "identity") => "rbr_identity.".into(),
        (BlockKind::MobileOne, "1x1") if state.contains_key("rbr_scale.conv.weight") => {
            "rbr_scale.".into()
        }
        (BlockKind::MobileOne, "kxk" | "1x1") => format!("rbr_conv.{copy}."),
        (BlockKind::MobileOne, "identity") => "rbr_skip.".into(),
        (BlockKind::Orepa, name) => return Some(orepa_alone(state, name)),
        (BlockKind::QaRepVgg, _) => return None,
        other => panic!("no branch {other:?}"),
    };
    // The reference counts copies from the first.
    let own = state.iter().filter_map(|(key, data)| {
        let rest = key.strip_prefix::<&str>(&prefix)?;
        let prefix = if prefix.starts_with("rbr_conv.") { "rbr_conv.0." } else { prefix.as_str() };
        Some((format!("{prefix}{rest}"), data.clone()))
    });
    Some(own.collect())
}

fn orepa_alone(state: &StateDict, name: &str) -> StateDict {
    let mut state = state.clone();
    let vector = Array::from(&state["vector"]);
    let names: &[&str] = if vector.shape[0] == 2 { &OREPA_POINTWISE } else { &OREPA };
    let kept = names.iter().position(|row| *row == name).expect("a row");
    let outputs = vector.shape[1];
    let rows = vector.data.iter().enumerate();
    let values: Vec<f32> = rows
        .map(|(index, &value)| if index / outputs == kept { value as f32 } else { 0.0 })
        .collect();
    state.insert("vector".into(), TensorData::new(values, vector.shape.clone()));
    state
}

/// A part as the tensors of a plain convolution whose norm does nothing.
fn as_plain(part: &BranchPart) -> StateDict {
    let shape = part.kernel.shape();
    let constant = |value: f64| TensorData::new(vec![value; shape[0]], [shape[0]]);
    StateDict::from([
        ("conv.weight".into(), TensorData::new(part.kernel.data.clone(), shape)),
        ("bn.weight".into(), constant(1.0)),
        ("bn.bias".into(), constant(0.0)),
        ("bn.running_mean".into(), constant(0.0)),
        ("bn.running_var".into(), constant(1.0 - 1e-5)),
    ])
}

/// The linear part of a block: its output less that of zeros.
fn linear(state: &StateDict, spec: &ConvSpec, input: &Array) -> Array {
    let zeros = Array::new(&input.shape, vec![0.0; input.data.len()]);
    let mut output = reference::forward(state, spec, input);
    let shift = reference::forward(state, spec, &zeros);
    output.data.iter_mut().zip(&shift.data).for_each(|(value, shift)| *value -= shift);
    output
}

#[test]
fn every_part_is_its_branch_alone_and_all_add_up_to_the_papers_kernel() {
    let mut compared = Vec::new();
    for path in fixture::files(&[".safetensors"]) {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut kinds = BlockKind::ALL.into_iter();
        let Some(kind) = kinds.find(|kind| file.starts_with(&format!("{kind}_k"))) else {
            continue;
        };
        let fixture = Fixture::read(&path);
        let state = fixture.state();
        let grouped = file.split(['_', '.']).find_map(|part| {
            part.strip_prefix("dw").or(part.strip_prefix('g'))?.parse::<usize>().ok()
        });
        let options = BlockFold {
            groups: vec![("*".into(), grouped.expect("groups in the name"))],
            ..BlockFold::default()
        };
        let units = options.units(state.clone()).expect("one block");
        let [(_, unit)] = &units[..] else { panic!("{file}: {} blocks", units.len()) };
        let parts = unit.parts();
        let spec = unit.spec();

        let mut sum = Array::new(&spec.weight_shape(), vec![0.0; parts[0].kernel.data.len()]);
        for part in &parts {
            sum.data.iter_mut().zip(&part.kernel.data).for_each(|(sum, value)| *sum += value);
        }
        assert_close(&file, &sum, &fixture.array("equiv_kernel"), 2e-5, 1.0);

        let input = Array::random(&[1, spec.channels[0], 6, 7], [-1.0, 1.0], 3);
        for part in &parts {
            let Some(alone) = alone(kind, &state, &part.name) else { continue };
            let what = format!("{file}: {}", part.name);
            let actual = linear(&as_plain(part), &spec, &input);
            let expected = linear(&alone, &spec, &input);
            assert_close(&what, &actual, &expected, 1e-5, 1e-3);
            assert_eq!(part.scales.as_ref().map(Vec::len), Some(spec.channels[1]), "{what}");
            compared.push(format!("{kind} {}", part.name));
        }
    }
    compared.sort();
    compared.dedup();
    for branch in
        ["acb kx1", "dbb 1x1_avg", "dbb avg", "mobileone kxk 4", "orepa 1x1_1x1", "repvgg identity"]
    {
        assert!(compared.iter().any(|found| found == branch), "no {branch} in {compared:?}");
    }
}
