//! The page of `dbb inspect`: what the branches of blocks have learnt.

use super::bars::{Bar, bars};
use super::chart::Chart;
use super::format::Quantity::{Logarithmic, Number, Percent};
use super::heat::{heat_map, heat_maps};
use super::page::{Html, Page, cards, details, grid, paragraph, table};
use super::scale::Axis;
use super::series::{Point, Series};
use crate::inspect::{BranchShare, Inspection, LayerBranches, Matrix, Scales, Window};
use crate::text::plural;

/// The page of an inspection.
pub fn branches_page(inspection: &Inspection) -> String {
    let what = inspection.network.as_deref().unwrap_or("blocks");
    let mut page = Page::new(format!("Branches of {what}"), false);
    page.add(Html::raw(format!(
        "<p class=\"muted\">{}</p>\n",
        Html::from(inspection.file.as_str())
    )));
    page.add(headline(inspection));
    let has_branches = inspection.layers.iter().any(|layer| layer.branches.len() > 1);
    if has_branches {
        page.section("Share of each branch", shares(inspection));
    }
    if !inspection.windows.is_empty() {
        page.section("Kernel magnitudes by position", magnitudes(inspection));
    }
    page.section("Scales of the closing norms", scales(inspection));
    page.section("How well the fold is conditioned", conditioning(inspection));
    page.render()
}

fn headline(inspection: &Inspection) -> Html {
    let layers = &inspection.layers;
    let names = inspection.branch_names();
    let largest = names
        .iter()
        .map(|name| (*name, inspection.mean_share(name)))
        .reduce(|best, next| if next.1 > best.1 { next } else { best });
    let different = format!("{} of different kinds", plural(names.len(), "branch"));
    let mut facts = vec![("Layers", layers.len().to_string(), different)];
    if let Some((name, share)) = largest.filter(|_| names.len() > 1) {
        let remark = format!("mean share of {name}, the largest");
        facts.push(("Largest branch", Percent.show(100.0 * share), remark));
    }
    if let Some(layer) = inspection.worst(|layer| layer.amplification.max) {
        let remark = format!("the worst channel, in {}", layer.name);
        facts.push(("Amplification", Number.show(layer.amplification.max), remark));
    }
    if let Some(layer) = inspection.worst(|layer| layer.fold_difference) {
        let remark = format!("of the largest output, in {}", layer.name);
        facts.push(("Fold difference", Number.show(layer.fold_difference), remark));
    }
    cards(&facts)
}

fn shares(inspection: &Inspection) -> Html {
    let names = inspection.branch_names();
    let index = |branch: &BranchShare| names.iter().position(|name| *name == branch.name);
    let bar = |layer: &LayerBranches| Bar {
        name: layer.name.clone(),
        parts: layer.branches.iter().filter_map(|b| Some((index(b)?, b.share))).collect(),
    };
    let rows: Vec<Bar> = inspection.layers.iter().map(bar).collect();
    let note = "The Frobenius norm of the kernel that each branch folds into, over the sum of those of \
                all branches of the layer.";
    Html::from_iter([
        paragraph(note),
        Html::raw(format!("<figure>\n{}</figure>\n", bars(&names, &rows))),
        details("Numbers", &share_table(&inspection.layers)),
    ])
}

fn share_table(layers: &[LayerBranches]) -> Html {
    let rows = layers.iter().flat_map(|layer| {
        layer.branches.iter().map(|branch| {
            [
                layer.name.clone(),
                layer.block.clone(),
                branch.name.clone(),
                Number.show(branch.norm),
                Percent.show(100.0 * branch.share),
                Percent.show(100.0 * branch.projection),
            ]
            .map(Html::from)
            .into()
        })
    });
    let note = "The projection is what a branch adds to the folded kernel along its direction; those of \
                a layer add up to 100 %, and it is negative where a branch works against the others.";
    let head = ["layer", "block", "branch", "norm", "share", "projection"];
    Html::from_iter([paragraph(note), table("Shares of the branches", &head, rows)])
}

fn magnitudes(inspection: &Inspection) -> Html {
    let all = inspection.windows.iter().map(of_window);
    let large = inspection.layers.iter().filter(|layer| layer.kernel[2..] != [1, 1]);
    let single: Html = large.map(of_layer).collect();
    let note = "Mean absolute kernel values by position. Those of a layer are divided by the largest of \
                its folded kernel, and the layers are averaged: for the folded kernel that is the \
                average kernel magnitude matrix of ACNet (Ding et al., ICCV 2019, section 4.4).";
    let all: Html = all.collect();
    Html::from_iter([paragraph(note), all, details("Every layer", &grid(single))])
}

fn of_window(window: &Window) -> Html {
    let [height, width] = window.kernel;
    let over = |layers: usize| format!("{} of {}", layers, plural(window.layers, "layer"));
    let maps = std::iter::once(("folded", over(window.layers), &window.magnitude))
        .chain(window.branches.iter().map(|b| (&*b.name, over(b.layers), &b.magnitude)));
    figure(&format!("{height}x{width}"), "all layers", maps.collect(), 1.0)
}

fn of_layer(layer: &LayerBranches) -> Html {
    let largest = layer.magnitude.iter().flatten().copied().fold(0.0, f64::max);
    let share = |branch: &BranchShare| Percent.show(100.0 * branch.share);
    let mut maps = vec![("folded", String::new(), &layer.magnitude)];
    if layer.branches.len() > 1 {
        maps[0].1 = "their sum".into();
        maps.extend(layer.branches.iter().map(|b| (&*b.name, share(b), &b.magnitude)));
    }
    let [outputs, per_group, height, width] = layer.kernel;
    let note = format!("{} {height}x{width}, {per_group} to {outputs} channels", layer.block);
    figure(&layer.name, &note, maps, largest)
}

/// Heat maps with one scale, whose full colour is the largest value of all; numbers are relative to
/// `unit`.
fn figure(title: &str, note: &str, maps: Vec<(&str, String, &Matrix)>, unit: f64) -> Html {
    let scaled = |matrix: &Matrix| -> Matrix {
        let divisor = if unit > 0.0 { unit } else { 1.0 };
        matrix.iter().map(|row| row.iter().map(|value| value / divisor).collect()).collect()
    };
    let maps: Vec<_> =
        maps.into_iter().map(|(name, note, map)| (name, note, scaled(map))).collect();
    let values = maps.iter().flat_map(|(_, _, map)| map.iter().flatten().copied());
    let largest = values.fold(0.0, f64::max);
    let maps = maps.iter().map(|(name, note, map)| heat_map(name, note, map, largest));
    let [title, note] = [title, note].map(Html::from);
    Html::raw(format!(
        "<figure>\n<figcaption><strong>{title}</strong> {note}</figcaption>\n{}</figure>\n",
        heat_maps(maps)
    ))
}

/// The numbers of layers along an axis.
const LAYER: Axis = Axis { name: "layer", ..Axis::STEP };

fn scales(inspection: &Inspection) -> Html {
    let of = |name: &str| {
        let layers = inspection.layers.iter().enumerate();
        let points = layers.filter_map(|(index, layer)| {
            let Scales { p10, median, p90, .. } = layer.branch(name)?.scales?;
            Some(Point { x: index as f64 + 1.0, y: median, band: Some([p10, p90]) })
        });
        Series { name: name.into(), line: points.collect(), ..Series::default() }
    };
    let names = inspection.branch_names();
    let series: Vec<_> = names.into_iter().map(of).filter(|of| !of.line.is_empty()).collect();
    if series.is_empty() {
        return paragraph("No branch has a norm: the network is folded.");
    }
    let chart = Chart {
        title: "Scales by layer",
        note:
            "Median over the channels of the absolute scale (gamma) of the closing norm, with the \
               band from the tenth to the ninetieth percentile. Layers are counted from the input."
                .into(),
        x: LAYER,
        y: Axis { name: "scale", quantity: Number, from_zero: true },
        series,
    };
    let chart = if chart.is_wide() { grid(chart.figure()) } else { Html::default() };
    let rows = inspection.layers.iter().enumerate().flat_map(|(index, layer)| {
        layer.branches.iter().filter_map(move |branch| {
            let Scales { min, p10, median, p90, max } = branch.scales?;
            let mut row = vec![format!("{} {}", index + 1, layer.name), branch.name.clone()];
            row.extend([min, p10, median, p90, max].map(|value| Number.show(value)));
            Some(row.into_iter().map(Html::from).collect())
        })
    });
    let head = ["layer", "branch", "smallest", "10 %", "median", "90 %", "largest"];
    let numbers = table("Scales of the closing norms", &head, rows);
    Html::from_iter([chart, details("Numbers", &numbers)])
}

fn conditioning(inspection: &Inspection) -> Html {
    let note = "The amplification of an output channel is the sum of the norms of its branches' filters \
                over the norm of the folded filter, the condition number of the sum. It is 1 where the \
                branches agree and near the square root of their number where they have nothing in \
                common; where they cancel, rounding errors grow by it. The difference is that \
                of block and folded convolution on a random map, both in f32, relative to the largest \
                output.";
    let rows = inspection.layers.iter().enumerate().map(|(index, layer)| {
        [
            format!("{} {}", index + 1, layer.name),
            Number.show(layer.amplification.median),
            Number.show(layer.amplification.max),
            Number.show(layer.fold_difference),
        ]
        .map(Html::from)
        .into()
    });
    let head = ["layer", "median amplification", "worst amplification", "fold difference"];
    let numbers = table("Conditioning of the folds", &head, rows);
    let line = |name: &str, value: fn(&LayerBranches) -> f64| {
        let layers = inspection.layers.iter().enumerate();
        Series::line(name, layers.map(|(index, layer)| [index as f64 + 1.0, value(layer)]))
    };
    let chart = Chart {
        title: "Amplification by layer",
        note: "Of the worst output channel, and the median over the channels.".into(),
        x: LAYER,
        y: Axis { name: "amplification", quantity: Logarithmic, from_zero: false },
        series: vec![
            line("worst", |layer| layer.amplification.max),
            line("median", |layer| layer.amplification.median),
        ],
    };
    let chart = if chart.is_wide() { grid(chart.figure()) } else { Html::default() };
    Html::from_iter([paragraph(note), chart, details("Numbers", &numbers)])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use dbb_models::blocks::{Block, BlockKind, BlockOptions, ConvSpec, ConvUnit};

    use super::super::testing::assert_well_formed;
    use super::*;

    fn inspection(kind: BlockKind, sizes: &[usize]) -> Inspection {
        let block = kind.with_options(&BlockOptions::default());
        let unit =
            |size| ConvUnit::new(&ConvSpec::square([2, 2], size, 1), &block, &Device::default());
        let layers = sizes
            .iter()
            .enumerate()
            .map(|(index, &size)| LayerBranches::new(format!("<{index}>"), &unit(size).unwrap()));
        Inspection::new("a & b".into(), Some("resnet20 with dbb blocks".into()), layers.collect())
    }

    #[test]
    fn every_block_has_a_page() {
        for kind in BlockKind::ALL {
            let page = branches_page(&inspection(kind, &[3, 5, 3]));
            assert_well_formed(&page);
            for part in ["a &amp; b", "&lt;2&gt;", "3x3", "5x5", "role=\"img\"", "folded"] {
                assert!(page.contains(part), "{kind}: no {part:?}");
            }
            assert_eq!(page.contains("Share of each branch"), kind.is_multi_branch(), "{kind}");
        }
    }

    #[test]
    fn a_folded_or_single_layer_has_no_curve() {
        let unit =
            ConvUnit::new(&ConvSpec::square([2, 2], 3, 1), &Block::Folded, &Device::default());
        let layers = vec![LayerBranches::new("conv".into(), &unit.unwrap())];
        let page = branches_page(&Inspection::new("file".into(), None, layers));
        assert_well_formed(&page);
        assert!(page.contains("No branch has a norm") && !page.contains("class=\"chart\""));
        let page = branches_page(&inspection(BlockKind::Dbb, &[3]));
        assert!(page.contains("1x1_kxk") && !page.contains("class=\"chart\""));
    }
}
