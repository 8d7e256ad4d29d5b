//! What the tests of the reports share.

use dbb_models::summary::Summary;
use dbb_models::{Arch, BlockKind, ModelConfig};

use super::Run;
use crate::run::metrics::EpochRecord;
use crate::run::steps::Steps;

/// Every tag is closed in its order, every attribute quoted, nothing is loaded or run.
pub fn assert_well_formed(html: &str) {
    // The one script, which the policy of the page allows by its hash.
    let script = format!("<script>{}</script>\n", include_str!("sort.js"));
    assert_eq!(
        html.contains(&script),
        html.contains("class=\"sortable\"") && html.contains("<html")
    );
    let html = html.replace(&script, "");
    let html = html.as_str();
    let mut open = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let (tag, text) = (&rest[start + 1..end], &rest[..start]);
        assert!(!text.contains('>') || open.last() == Some(&"style"), "bare > in {text:?}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "in {}", &rest[..end]);
        } else if !tag.starts_with('!') && !tag.ends_with('/') {
            open.push(name);
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
    let pictures = html.matches("src=\"data:image/").count();
    assert_eq!((html.matches("src=").count(), html.matches("<img").count()), (pictures, pictures));
    for loading in ["<script", "http:", "https:", "url(", "@import", "<link"] {
        assert!(!html.contains(loading), "{loading}");
    }
}

pub fn record(epoch: usize, top1: f64) -> EpochRecord {
    EpochRecord {
        epoch,
        step: 8 * epoch,
        images: 512,
        lr: 0.05,
        train_loss: 1.2345,
        train_top1: top1 - 5.0,
        val_loss: 1.5,
        top1,
        top5: 99.25,
        fold_max_rel_diff: 4.7e-7,
        images_per_second: 533.25,
        seconds: 53.5,
        loader_seconds: 4.5,
        validation_seconds: 9.0,
        skipped: 0,
        spikes: 0,
    }
}

pub fn run(block: BlockKind, seed: u64, top1: &[f64]) -> Run {
    let text = format!(
        "seed = {seed}\n[model]\narch = \"resnet20\"\nblock = \"{block}\"\n[data]\n\
         source = \"a <folder> & more\"\n[train]\nepochs = 2\nbatch_size = 64\n[optim]\nlr = 0.05\n"
    );
    let model = ModelConfig::new(Arch::ResNet20, block, 10);
    Run {
        config: toml::from_str(&text).unwrap(),
        summary: Summary::new(&model, [28, 28]).unwrap(),
        env: serde_json::json!({"device": "Device<Flex>", "train_fingerprint": "0123abcd"}),
        steps: Steps::default(),
        step: [8 * top1.len(), 16],
        findings: None,
        batch: Vec::new(),
        records: top1.iter().enumerate().map(|(i, &top1)| record(i + 1, top1)).collect(),
    }
}
