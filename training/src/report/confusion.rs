//! Confused classes: the matrix of few classes in numbers, that of many as a picture, and the most
//! frequent pairs.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::format::Quantity::Percent;
use super::page::{Html, paragraph, table};
use crate::classification::Confusion;

/// Up to so many classes have a matrix of numbers.
const NUMBERED: usize = 20;
/// A picture has at most so many cells a side.
const CELLS: usize = 200;
/// Shades of a picture.
const SHADES: usize = 8;
/// How much darker the lightest of them is than nothing, in shades.
const FAINTEST: usize = 2;
/// Pairs that are listed.
const PAIRS: usize = 20;

pub(super) fn confusion(findings: &Findings) -> Html {
    let confusion = &findings.classification.confusion;
    let classes = confusion.classes();
    let present: Vec<_> = classes.iter().filter(|class| class.support > 0).collect();
    let supports: Vec<[usize; 2]> = present.iter().map(|c| [c.class, c.support]).collect();
    let matrix = match supports.len() {
        0 | 1 => Html::default(),
        2..=NUMBERED => numbers(findings, &supports),
        _ => picture(confusion, &supports),
    };
    Html::from_iter([matrix, pairs(findings, &supports)])
}

/// Rows are labels, columns are predictions, of the classes that the data have images of.
fn numbers(findings: &Findings, supports: &[[usize; 2]]) -> Html {
    let confusion = &findings.classification.confusion;
    let known = |class: usize| supports.iter().any(|[other, _]| *other == class);
    let has_others = confusion.counts().any(|[_, prediction, _]| !known(prediction));
    let mut head: String = supports
        .iter()
        .map(|&[class, _]| format!("<th scope=\"col\"><span>{}</span></th>", name(findings, class)))
        .collect();
    if has_others {
        head += "<th scope=\"col\"><span>other classes</span></th>";
    }
    let mut body = String::new();
    for &[label, support] in supports {
        body += &format!("<tr><th scope=\"row\">{}</th>", name(findings, label));
        let mut others = support;
        for &[prediction, _] in supports {
            let images = confusion.count(label, prediction);
            others -= images;
            body += &cell(images, support, label == prediction);
        }
        if has_others {
            body += &cell(others, support, false);
        }
        body += "</tr>\n";
    }
    Html::from_iter([
        paragraph(
            "Each row has the images of a class, each column those taken for a class. Shades grow with the \
             square root of the share of the row.",
        ),
        Html::raw(format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"Confusion matrix\" tabindex=\"0\">\
             <table class=\"confusion\">\n<thead><tr><th scope=\"col\">label \\ prediction</th>{head}</tr>\
             </thead>\n<tbody>\n{body}</tbody></table></div>\n"
        )),
    ])
}

fn name(findings: &Findings, class: usize) -> Html {
    findings.label(class).into()
}

fn cell(images: usize, support: usize, is_right: bool) -> String {
    if images == 0 {
        return "<td class=\"none\">0</td>".into();
    }
    let shade = (images as f64 / support as f64).sqrt();
    let side = if is_right { "right" } else { "wrong" };
    let dark = if shade > 0.6 { " high" } else { "" };
    format!("<td class=\"{side}{dark}\" style=\"--s:{shade:.2}\">{images}</td>")
}

/// The matrix of many classes, of which neighbours share a cell where there are more than [`CELLS`].
fn picture(confusion: &Confusion, supports: &[[usize; 2]]) -> Html {
    let group = supports.len().div_ceil(CELLS);
    let side = supports.len().div_ceil(group);
    let place: BTreeMap<usize, usize> =
        supports.iter().enumerate().map(|(i, &[class, _])| (class, i / group)).collect();
    let mut rows = vec![0; side];
    supports.iter().enumerate().for_each(|(i, &[_, support])| rows[i / group] += support);
    let mut cells = BTreeMap::<[usize; 3], usize>::new();
    for [label, prediction, images] in confusion.counts() {
        let (Some(&row), Some(&column)) = (place.get(&label), place.get(&prediction)) else {
            continue;
        };
        let is_right = label == prediction;
        // What is confused within a group has no place of its own.
        if is_right || row != column {
            *cells.entry([usize::from(is_right), row, column]).or_default() += images;
        }
    }
    // One path for all cells of a shade.
    let mut paths = BTreeMap::<[usize; 2], String>::new();
    for ([is_right, row, column], images) in cells {
        let shade = (images as f64 / rows[row] as f64).sqrt() * SHADES as f64;
        let path = paths.entry([is_right, (shade.ceil() as usize).clamp(1, SHADES)]).or_default();
        *path += &format!("M{column} {row}.5h1");
    }
    let paths: String = paths
        .into_iter()
        .map(|([is_right, shade], path)| {
            let class = ["wrong", "right"][is_right];
            // The lightest shade must be seen on either background.
            let opacity = (shade + FAINTEST) as f64 / (SHADES + FAINTEST) as f64;
            format!("<path class=\"{class}\" stroke-opacity=\"{opacity:.3}\" d=\"{path}\"/>\n")
        })
        .collect();
    let correct: usize =
        confusion.counts().filter(|[label, prediction, _]| label == prediction).map(|c| c[2]).sum();
    let share = Percent.show(100.0 * correct as f64 / confusion.images().max(1) as f64);
    let grouped = match group {
        1 => String::new(),
        _ => format!(
            " A cell stands for {group} neighbouring classes; confusions among them are left out."
        ),
    };
    let description = format!(
        "Confusion matrix of {} classes: {share} of the images lie on the diagonal. The pairs that are \
         confused most often are in the table that follows.",
        supports.len()
    );
    let (classes, box_side) = (supports.len(), side + 1);
    Html::raw(format!(
        "<figure class=\"wide\">\n<figcaption><strong>Confusion matrix</strong> {classes} classes, from the \
         first at the top left to the last: rows by label, columns by prediction. Shades grow with the \
         square root of the share of the row.{grouped}</figcaption>\n\
         <svg class=\"matrix\" viewBox=\"-0.5 -0.5 {box_side} {box_side}\" role=\"img\" \
         aria-label=\"{}\">\n{paths}<rect class=\"frame\" x=\"0\" y=\"0\" width=\"{side}\" \
         height=\"{side}\"/></svg></figure>\n",
        Html::from(description),
    ))
}

fn pairs(findings: &Findings, supports: &[[usize; 2]]) -> Html {
    let pairs = findings.classification.confusion.most_confused(PAIRS);
    if pairs.is_empty() {
        return paragraph("No class is taken for another.");
    }
    let supports: BTreeMap<usize, usize> =
        supports.iter().map(|&[c, support]| (c, support)).collect();
    let rows = pairs.iter().map(|pair| {
        let share = supports.get(&pair.label).map(|&support| pair.images as f64 / support as f64);
        [
            format!("{} as {}", findings.label(pair.label), findings.label(pair.prediction)),
            pair.images.to_string(),
            share.map(|share| Percent.show(100.0 * share)).unwrap_or_default(),
        ]
        .map(Html::from)
        .into()
    });
    let head = ["images of a class, taken as another", "images", "share of the class"];
    let heading = Html::raw("<h3>Most confused pairs</h3>\n");
    Html::from_iter([heading, table("Most confused pairs", &head, rows)])
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::of;
    use super::*;

    #[test]
    fn few_classes_are_shown_in_numbers() {
        // Of two images of class 1 one is right and one is taken for 2.
        let html = confusion(&of(4)).to_string();
        let row = "<tr><th scope=\"row\">&lt;1&gt;</th><td class=\"none\">0</td>\
                   <td class=\"right high\" style=\"--s:0.71\">1</td>\
                   <td class=\"wrong high\" style=\"--s:0.71\">1</td><td class=\"none\">0</td></tr>";
        assert!(html.contains(row), "{html}");
        assert!(!html.contains("other classes"));
        let mut findings = of(4);
        findings.classification.add(99, 1, &[0.0, 0.0, 0.0, 0.0, 9.0]);
        let html = confusion(&findings).to_string();
        assert!(html.contains("other classes") && html.contains("class 4"), "{html}");
    }

    #[test]
    fn many_classes_are_a_picture() {
        let html = confusion(&of(100)).to_string();
        // Right, a half of the row: the square root 0.71 is the sixth of eight shades.
        let start = html.find("<path class=\"right\" stroke-opacity=\"0.800\" d=\"").unwrap();
        let path = html[start..].split('"').nth(5).unwrap();
        assert!(path.starts_with("M0 0.5h1M1 1.5h1M2 2.5h1"), "{path}");
        assert!(html.contains("M2 1.5h1"), "class 1 is taken for 2");
        assert!(html.contains("Confusion matrix of 100 classes: 50.50 % of the images"), "{html}");
        let grouped = confusion(&of(1000)).to_string();
        assert!(grouped.contains("A cell stands for 5 neighbouring classes"));
        assert!(
            grouped.contains("viewBox=\"-0.5 -0.5 201 201\"")
                && grouped.contains("1000 classes, from")
        );
    }

    #[test]
    fn the_most_frequent_pair_comes_first() {
        let html = pairs(&of(10), &[[0, 2], [1, 2]]).to_string();
        let row =
            "<tr><th scope=\"row\">&lt;0&gt; as &lt;9&gt;</th><td>1</td><td>50.00 %</td></tr>";
        assert!(html.contains(row), "{html}");
        assert!(pairs(&of(1), &[[0, 2]]).to_string().contains("No class is taken"));
    }
}
