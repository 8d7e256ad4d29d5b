//! Blocks and networks that cannot be built, or could not be folded exactly, are refused with a
//! typed error that says what is wrong; and their neighbours that can be are not.

use burn::tensor::Device;
use dbb_models::blocks::{Block, BlockKind, Branch, ConvSpec, ConvUnit, DbbConfig, OrepaConfig};
use dbb_models::{Arch, ByLayer, ConfigError, Form, ModelConfig};

fn dbb() -> Block {
    Block::Dbb(DbbConfig::default())
}

fn with_internal(channels: usize) -> Block {
    Block::Dbb(DbbConfig { internal_channels: Some(channels), ..Default::default() })
}

fn with_branches(branches: &[Branch]) -> Block {
    Block::Dbb(DbbConfig { branches: branches.to_vec(), ..Default::default() })
}

#[track_caller]
fn refused(spec: &ConvSpec, block: &Block) -> ConfigError {
    ConvUnit::new(spec, block, &Device::default()).expect_err("this block cannot be built")
}

#[track_caller]
fn built(spec: &ConvSpec, block: &Block) {
    ConvUnit::new(spec, block, &Device::default()).expect("this block can be built");
}

/// The message names all of these.
#[track_caller]
fn assert_says(error: &ConfigError, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "\"{message}\" does not mention {word}");
    }
}

#[test]
fn a_kernel_of_even_size() {
    for block in [dbb(), Block::Acb] {
        for size in [2, 4, 6] {
            let error = refused(&ConvSpec::square([4, 4], size, 1), &block);
            assert!(matches!(error, ConfigError::Kernel { kernel, .. } if kernel == [size; 2]));
            assert_says(&error, &[&format!("{size}x{size}"), "odd"]);
        }
    }
    built(&ConvSpec::square([4, 4], 4, 1), &Block::Base);
}

#[test]
fn an_oblong_kernel() {
    let spec = ConvSpec::new([4, 4], [3, 5]).with_padding([1, 2]);
    for (block, name) in [(dbb(), "Diverse Branch"), (Block::Acb, "Asymmetric Convolution")] {
        let error = refused(&spec, &block);
        assert!(matches!(error, ConfigError::Kernel { kernel: [3, 5], .. }), "{error:?}");
        assert_says(&error, &["3x5", "square", name]);
    }
    built(&spec, &Block::Base);
}

#[test]
fn another_padding_than_half_the_kernel() {
    for (size, padding) in [(3, [0, 0]), (3, [2, 2]), (5, [1, 1]), (5, [2, 1]), (1, [1, 1])] {
        let spec = ConvSpec::new([4, 4], [size; 2]).with_padding(padding);
        let error = refused(&spec, &dbb());
        assert_eq!(
            error,
            ConfigError::Padding { block: "a Diverse Branch Block", kernel: size, padding }
        );
        assert_says(&error, &[&format!("padding {}", size / 2), &format!("{padding:?}")]);
        built(&spec, &Block::Acb);
        built(&spec, &Block::Base);
    }
}

#[test]
fn as_many_groups_as_outputs_but_not_as_inputs() {
    for (inputs, groups) in [(8, 4), (4, 1), (12, 6)] {
        let spec = ConvSpec::square([inputs, groups], 3, 1).with_groups(groups);
        let error = refused(&spec, &dbb());
        assert_eq!(error, ConfigError::Grouped { groups, inputs });
        assert_says(&error, &["groups", &inputs.to_string(), &groups.to_string()]);
        built(&spec, &Block::Acb);
    }
    built(&ConvSpec::square([4, 4], 3, 1).with_groups(4), &dbb());
    built(&ConvSpec::square([1, 1], 3, 1), &dbb());
    // A depth multiplier has more outputs than groups.
    built(&ConvSpec::square([4, 8], 3, 1).with_groups(4), &dbb());
}

#[test]
fn groups_that_divide_no_channels() {
    for (channels, groups) in [([4, 6], 3), ([6, 4], 3), ([4, 4], 0), ([4, 4], 8)] {
        let spec = ConvSpec::square(channels, 3, 1).with_groups(groups);
        for block in [dbb(), Block::Acb, Block::Base, Block::Folded] {
            let error = refused(&spec, &block);
            assert!(matches!(error, ConfigError::Geometry { groups: g, .. } if g == groups));
            assert_says(&error, &["groups", &groups.to_string(), &channels[1].to_string()]);
        }
    }
}

#[test]
fn a_zero_in_the_geometry() {
    let good = ConvSpec::square([4, 4], 3, 1);
    for spec in [
        ConvSpec { channels: [0, 4], ..good.clone() },
        ConvSpec { channels: [4, 0], ..good.clone() },
        ConvSpec { kernel_size: [0, 3], ..good.clone() },
        ConvSpec { stride: [1, 0], ..good.clone() },
    ] {
        for block in [dbb(), Block::Acb, Block::Base, Block::Folded] {
            assert!(matches!(refused(&spec, &block), ConfigError::Geometry { .. }), "{spec:?}");
        }
    }
}

#[test]
fn an_internal_width_the_groups_do_not_divide() {
    for (channels, groups, internal) in [([4, 8], 2, 3), ([4, 8], 1, 0), ([6, 6], 6, 4)] {
        let spec = ConvSpec::square(channels, 3, 1).with_groups(groups);
        let error = refused(&spec, &with_internal(internal));
        assert_eq!(error, ConfigError::InternalChannels { internal, groups });
        assert_says(&error, &["internal_channels", &internal.to_string(), &groups.to_string()]);
        built(&spec, &with_internal(2 * groups));
    }
}

#[test]
fn no_branch() {
    let dense = ConvSpec::square([4, 4], 3, 1);
    let depthwise = dense.clone().with_groups(4);
    assert_eq!(refused(&dense, &with_branches(&[])), ConfigError::NoBranch);
    let error = refused(&depthwise, &with_branches(&[Branch::Pointwise]));
    assert_eq!(error, ConfigError::NoBranch);
    assert_says(&error, &["branch", "1x1", "kxk"]);
    built(&dense, &with_branches(&[Branch::Pointwise]));
    built(&depthwise, &with_branches(&[Branch::Pointwise, Branch::Average]));
}

#[track_caller]
fn option_of(config: &ModelConfig) -> &'static str {
    for form in [Form::Train, Form::Deploy] {
        match config.init(form, &Device::default()) {
            Err(ConfigError::Option { option, value, expected }) => {
                let error = ConfigError::Option { option, value: value.clone(), expected };
                assert_says(&error, &[option, &value, expected]);
                if form == Form::Deploy {
                    return option;
                }
            }
            Err(other) => panic!("another error than Option: {other:?}"),
            Ok(_) => panic!("{config:?} was built"),
        }
    }
    unreachable!("one of the two forms returns")
}

#[test]
fn options_of_a_network_out_of_range() {
    let good =
        ModelConfig { width: 0.125, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, 10) };
    good.init(Form::Train, &Device::default()).expect("the neighbour can be built");
    assert_eq!(option_of(&ModelConfig { num_classes: 0, ..good.clone() }), "num_classes");
    assert_eq!(option_of(&ModelConfig { in_channels: 0, ..good.clone() }), "in_channels");
    // Sizes that no memory holds.
    assert_eq!(option_of(&ModelConfig { num_classes: usize::MAX, ..good.clone() }), "num_classes");
    assert_eq!(option_of(&ModelConfig { in_channels: usize::MAX, ..good.clone() }), "in_channels");
    for internal in [1_000_000_000_000, usize::MAX] {
        let dbb = DbbConfig { internal_channels: Some(internal), ..DbbConfig::default() };
        let dbb = ModelConfig { block: BlockKind::Dbb, dbb, ..good.clone() };
        assert_eq!(option_of(&dbb), "dbb.internal_channels");
        let orepa = OrepaConfig { internal_channels: Some(internal) };
        let orepa = ModelConfig { block: BlockKind::Orepa, orepa, ..good.clone() };
        assert_eq!(option_of(&orepa), "orepa.internal_channels");
    }
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert_eq!(option_of(&ModelConfig { width, ..good.clone() }), "width");
    }
}

/// A width above zero that rounds a layer down to no channel. The later MobileNets keep eight.
#[test]
fn a_width_that_leaves_no_channel() {
    let keeps_eight = |arch: &Arch| {
        matches!(arch, Arch::MobileNetV2 | Arch::MobileNetV3Large | Arch::MobileNetV3Small)
    };
    for arch in Arch::ALL.into_iter().filter(|arch| !keeps_eight(arch)) {
        for block in BlockKind::ALL {
            let config = ModelConfig { width: 0.01, ..ModelConfig::new(arch, block, 10) };
            let error = config.init(Form::Train, &Device::default()).expect_err("no channels");
            assert!(matches!(error, ConfigError::Geometry { .. }), "{arch}: {error:?}");
        }
    }
}

#[test]
fn a_pattern_that_matches_no_layer() {
    for pattern in ["stage9.*", "stage4", "*.conv3", "", "Stem"] {
        let blocks =
            ByLayer(vec![("stage1.*".into(), BlockKind::Acb), (pattern.into(), BlockKind::Base)]);
        let config = ModelConfig {
            blocks,
            width: 0.125,
            ..ModelConfig::new(Arch::ResNet18, BlockKind::Dbb, 10)
        };
        for form in [Form::Train, Form::Deploy] {
            let error = config.init(form, &Device::default()).expect_err("a pattern in vain");
            assert!(
                matches!(&error, ConfigError::Pattern { pattern: found, .. } if found == pattern),
                "{error:?}"
            );
            assert_says(&error, &[&format!("\"{pattern}\""), "resnet18", "stem", "stage1.0.conv1"]);
        }
    }
}

#[test]
fn names_of_architectures_and_blocks() {
    for arch in Arch::ALL {
        assert_eq!(arch.name().parse(), Ok(arch));
    }
    for block in BlockKind::ALL {
        assert_eq!(block.name().parse(), Ok(block));
    }
    let error = "resnet19".parse::<Arch>().expect_err("no such architecture");
    assert_says(&error, &["\"resnet19\""]);
    for arch in Arch::ALL {
        assert_says(&error, &[arch.name()]);
    }
    let error = "DBB".parse::<BlockKind>().expect_err("names are lower case");
    assert_says(&error, &["\"DBB\"", "base", "dbb", "acb"]);
}
