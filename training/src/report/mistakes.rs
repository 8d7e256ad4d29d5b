//! The worst mistakes as pictures.

use super::findings::Findings;
use super::format::Quantity::{Number, Percent};
use super::page::{Html, paragraph};
use super::picture::{no_picture, picture, pictures};
use crate::classification::Mistake;
use crate::inference::pictures::Picture;

/// The worst mistakes with what was said and what is right.
pub(super) fn mistakes(findings: &Findings) -> Html {
    let worst = findings.classification.mistakes.worst();
    if worst.is_empty() {
        return paragraph("Every image is classified correctly.");
    }
    let note = format!(
        "The {} images with the largest loss among those classified wrongly, as the network gets them: \
         what it says and how probable it thinks that, and what the label says.",
        worst.len()
    );
    let shown = worst.iter().zip(&findings.pictures).map(|(mistake, picture)| {
        let Mistake { label, prediction, .. } = *mistake;
        one(mistake, picture, &findings.label(label), &findings.label(prediction))
    });
    Html::from_iter([paragraph(note), pictures(shown.collect())])
}

fn one(mistake: &Mistake, shown: &Picture, label: &str, prediction: &str) -> Html {
    // The unit stays with its number at the end of a line.
    let percent = |share: f64| Percent.show(100.0 * share).replace(' ', "\u{a0}");
    let [said, right] = [mistake.probability, mistake.label_probability].map(percent);
    let place = match &shown.file {
        Some(file) => file.clone(),
        None => format!("image {}", mistake.index),
    };
    let alternative =
        format!("{place}: taken for {prediction} ({said}), labelled {label} ({right})");
    let [prediction, label, place] = [prediction, label, &place].map(Html::from);
    let caption = Html::raw(format!(
        "<strong class=\"wrong\">{prediction}</strong> {said}<br/><span>is {label}</span> {right}\
         <small>{place}, loss {}</small>",
        Number.show(mistake.loss)
    ));
    match &shown.thumbnail {
        Some(thumbnail) => picture(thumbnail, &alternative, &caption),
        None => no_picture(&caption),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::of;
    use super::*;

    #[test]
    fn a_mistake_says_what_was_said_and_what_is_right() {
        let mut findings = of(10);
        let html = mistakes(&findings).to_string();
        let worst = findings.classification.mistakes.worst();
        assert_eq!(html.matches("<figure>").count(), worst.len());
        let said = Percent.show(100.0 * worst[1].probability).replace(' ', "\u{a0}");
        let text = format!(
            "alt=\"a &amp; b.png: taken for &lt;{}&gt; ({said}), labelled &lt;{}&gt; (",
            worst[1].prediction, worst[1].label
        );
        assert!(html.contains(&text), "no {text} in {html}");
        assert_eq!(html.matches("cannot be read").count(), 1);
        findings.classification = Default::default();
        assert!(mistakes(&findings).to_string().contains("classified correctly"));
    }
}
