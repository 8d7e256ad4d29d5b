//! A matrix as a heat map: SVG whose numbers are its text alternative.

use super::page::Html;

/// Side of a cell in units of the drawing.
const CELL: f64 = 40.0;
/// More columns than this leave no room for numbers in the cells.
const NUMBERED: usize = 5;
/// Above this share of the largest value, a cell is dark enough for light digits.
const DARK: f64 = 0.72;

/// A heat map of values from 0, with a caption; `largest` has the full colour.
pub fn heat_map(title: &str, note: &str, matrix: &[Vec<f64>], largest: f64) -> Html {
    let (rows, columns) = (matrix.len(), matrix.first().map_or(0, Vec::len));
    let [width, height] = [columns, rows].map(|cells| cells as f64 * CELL);
    let mut cells = String::new();
    for (row, values) in matrix.iter().enumerate() {
        for (column, &value) in values.iter().enumerate() {
            let [x, y] = [column, row].map(|at| at as f64 * CELL);
            // NaN has no colour.
            let shade = if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
            let shade = if shade.is_nan() { 0.0 } else { shade };
            let text = format!("{value:.2}");
            cells += &format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" \
                 fill-opacity=\"{shade:.3}\"><title>{text}</title></rect>"
            );
            if columns <= NUMBERED {
                let class = if shade > DARK { " class=\"high\"" } else { "" };
                let [x, y] = [x + CELL / 2.0, y + CELL / 2.0 + 4.0];
                cells += &format!("<text{class} x=\"{x}\" y=\"{y}\">{text}</text>");
            }
        }
        cells.push('\n');
    }
    let row = |row: &Vec<f64>| {
        row.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ")
    };
    let rows: Vec<String> = matrix.iter().map(row).collect();
    let label = Html::from(format!("{title}, row by row: {}", rows.join("; ")));
    let [title, note] = [title, note].map(Html::from);
    Html::raw(format!(
        "<figure><figcaption><strong>{title}</strong> {note}</figcaption>\
         <svg class=\"heat\" viewBox=\"-1 -1 {} {}\" role=\"img\" aria-label=\"{label}\">\n{cells}\
         <rect class=\"frame\" x=\"0\" y=\"0\" width=\"{width}\" height=\"{height}\"/></svg></figure>\n",
        width + 2.0,
        height + 2.0,
    ))
}

/// Heat maps side by side.
pub fn heat_maps(maps: impl IntoIterator<Item = Html>) -> Html {
    let maps: Html = maps.into_iter().collect();
    Html::raw(format!("<div class=\"heats\">\n{maps}</div>\n"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_well_formed;
    use super::*;

    #[test]
    fn values_are_shades_and_words() {
        let matrix = [vec![0.0, 0.25], vec![1.0, f64::NAN]];
        let map = heat_map("a <b>", "", &matrix, 1.0).to_string();
        assert_well_formed(&map);
        assert!(
            map.contains("aria-label=\"a &lt;b&gt;, row by row: 0.00 0.25; 1.00 NaN\""),
            "{map}"
        );
        for cell in [
            "<rect x=\"40\" y=\"0\" width=\"40\" height=\"40\" fill-opacity=\"0.250\">",
            "<rect x=\"40\" y=\"40\" width=\"40\" height=\"40\" fill-opacity=\"0.000\">",
            "<text class=\"high\" x=\"20\" y=\"64\">1.00</text>",
            "<text x=\"60\" y=\"24\">0.25</text>",
        ] {
            assert!(map.contains(cell), "no {cell} in {map}");
        }
        let wide = heat_map("wide", "", &[vec![0.5; 7]], 0.0).to_string();
        assert!(!wide.contains("<text") && wide.contains("fill-opacity=\"0.000\""));
    }
}
