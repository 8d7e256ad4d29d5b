//! `dbb results`: pages that are made from the tables of comparisons.

use std::fs;
use std::process::Command;

use dbb_training::results::Part;

use crate::calls::*;
use crate::setup::*;

const PAGE: &str = "# Results

<!-- dbb arms study/compare.csv -->
what was here before
<!-- /dbb -->

<!-- dbb comparisons study/compare.csv -->
<!-- /dbb -->

<!-- dbb sources study/compare.csv -->
<!-- /dbb -->

<!-- dbb differences differences.svg study/compare.csv -->
<!-- /dbb -->

<!-- dbb runs runs.svg study/compare.csv -->
<!-- /dbb -->

DBB differs by <!-- dbb delta study/compare.csv dbb base --><!-- /dbb --> points
(p = <!-- dbb p study/compare.csv dbb base -->1<!-- /dbb -->), reaches
<!-- dbb top1 study/compare.csv dbb --><!-- /dbb --> in
<!-- dbb epochs study/compare.csv dbb --><!-- /dbb --> epochs,
<!-- dbb seeds study/compare.csv dbb --><!-- /dbb --> seeds.
";

const STUDY: &str = r#"
seeds = 2
set = ["data.limit_train=160", "data.limit_val=40", "data.size=8", "model.width=0.25",
       "train.epochs=2", "train.batch_size=16", "optim.lr=0.01"]

[primary]
arm = "dbb"
baseline = "base"

[[arms]]
name = "base"
config = "BASE"

[[arms]]
name = "dbb"
config = "BASE"
set = ["model.block=dbb"]
"#;

fn results(pages: &[&str], more: &[&str]) -> Command {
    let mut command = Command::new(DBB);
    command.arg("results").args(pages).args(more);
    command
}

/// A value of the CSV file by the name of its column, for every run of an arm.
fn column(csv: &str, arm: &str, name: &str) -> Vec<String> {
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let find = |name: &str| lines[0].iter().position(|own| *own == name).expect("the column");
    let of_arm = lines[1..].iter().filter(|line| line[find("arm")] == arm);
    of_arm.map(|line| line[find(name)].to_string()).collect()
}

/// A study that is really trained; the numbers of the page are worked out here from its table.
#[test]
fn a_page_is_made_from_the_table_of_a_study() {
    let folder = Folder::new();
    let study = folder.file("study.toml", STUDY.replace("BASE", QUICK_BASE).as_bytes());
    let out = folder.at("study");
    let mut compare = Command::new(DBB);
    compare.args(["compare", "--study", &study, "--out", &out, "--threads", "1"]);
    call(&mut compare).succeeds();
    let page = folder.file("page.md", PAGE.as_bytes());
    call(&mut results(&[&page], &["--check"])).fails(3, &["page.md is stale: line 3, ", "--check"]);
    assert_eq!(fs::read_to_string(&page).expect("the page"), PAGE, "--check writes nothing");

    let first = call(&mut results(&[&page], &["--json"])).succeeds();
    assert_eq!(first.json()["pages"][0]["parts"], 10);
    let text = fs::read_to_string(&page).expect("the page");
    assert!(!text.contains("what was here before"), "{text}");

    let csv = fs::read_to_string(format!("{out}/compare.csv")).expect("the table");
    let top1 = |arm: &str| -> Vec<f64> {
        column(&csv, arm, "top1").iter().map(|text| text.parse().expect("a number")).collect()
    };
    let (base, dbb) = (top1("base"), top1("dbb"));
    // Two pairs: half the width of the interval is t(0.975, 1) times half the distance of the differences.
    let [first_pair, second_pair] = [dbb[0] - base[0], dbb[1] - base[1]];
    let half = 12.7062 * (first_pair - second_pair).abs() / 2.0;
    let delta = format!("{:+.2} ± {half:.2}", (first_pair + second_pair) / 2.0);
    let spread = (dbb[0] - dbb[1]).abs() / 2f64.sqrt();
    let of_dbb = format!("{:.2} ± {spread:.2}", (dbb[0] + dbb[1]) / 2.0);
    let commit = &column(&csv, "dbb", "commit")[0];
    let commit = if commit.is_empty() { "unknown" } else { commit };
    for says in [
        format!("| dbb | dbb | 2 | 2 | {of_dbb} |"),
        format!("| compare | dbb − base (primary) | 2 | {delta} |"),
        format!(
            "| [compare](study/compare.csv) | 4 | `dbb compare --study {study} --threads 1` | {commit} |"
        ),
        format!(
            "differs by <!-- dbb delta study/compare.csv dbb base -->{delta}<!-- /dbb --> points"
        ),
        format!("reaches\n<!-- dbb top1 study/compare.csv dbb -->{of_dbb}<!-- /dbb --> in"),
        "dbb epochs study/compare.csv dbb -->2<!--".into(),
        "dbb seeds study/compare.csv dbb -->2<!--".into(),
        "](differences.svg)".into(),
    ] {
        assert!(text.contains(&says), "no {says} in {text}");
    }
    let picture = |name: &str| fs::read_to_string(folder.at(name)).expect("a picture");
    let (differences, runs) = (picture("differences.svg"), picture("runs.svg"));
    assert!(
        differences.contains(&format!("dbb − base {}", delta.replace('-', "−"))),
        "{differences}"
    );
    assert!(differences.contains("prefers-color-scheme: dark"));
    assert_eq!(runs.matches("class=\"dot\"").count(), 4, "a dot for every run: {runs}");

    // Nothing is left to do, and a number that is changed by hand is found.
    let current = call(&mut results(&[&page], &["--check"])).succeeds();
    assert!(current.stdout.contains("10 parts; nothing has changed"), "{}", current.all());
    fs::write(&page, text.replace(&delta, "+99.00 ± 0.01")).expect("a file");
    call(&mut results(&[&page], &["--check"])).fails(3, &["stale"]);
    call(&mut results(&[&page], &[])).succeeds();
    assert_eq!(fs::read_to_string(&page).expect("the page"), text);
    fs::remove_file(folder.at("runs.svg")).expect("a picture");
    call(&mut results(&[&page], &["--check"])).fails(3, &["runs.svg"]);
}

#[test]
fn mistakes_in_a_page_are_told_with_their_line() {
    let folder = Folder::new();
    folder.file("bad.csv", b"model,top1\nresnet20,80\n");
    for (text, says) in [
        ("# Results\n", "page.md has no part to fill"),
        (
            "a\n\n<!-- dbb tabel x.csv -->\n<!-- /dbb -->",
            "page.md:3: \"tabel\" is no part; expected one of arms,",
        ),
        ("<!-- dbb arms x.csv -->\n", "page.md:1: the part does not end"),
        (
            "<!-- dbb arms x.csv --><!-- dbb arms x.csv --><!-- /dbb -->",
            "page.md:1: the part does not end",
        ),
        ("\n<!-- dbb arms x.csv ", "page.md:2: the comment does not end"),
        (
            "<!-- dbb delta x.csv dbb --><!-- /dbb -->",
            "expected <!-- dbb delta CSV ARM BASELINE -->",
        ),
        (
            "<!-- dbb differences bad.csv other.csv --><!-- /dbb -->",
            "expected <!-- dbb differences SVG CSV... -->",
        ),
        ("<!-- dbb runs bad.csv other.csv --><!-- /dbb -->", "expected <!-- dbb runs SVG CSV -->"),
        ("<!-- dbb arms x.csv --><!-- /dbb -->", "cannot read the table"),
        (
            "<!-- dbb arms bad.csv --><!-- /dbb -->",
            "bad.csv is no table of `dbb compare`: there is no column",
        ),
    ] {
        let page = folder.file("page.md", text.as_bytes());
        call(&mut results(&[&page], &[])).fails(1, &[says]);
        assert_eq!(fs::read_to_string(&page).expect("the page"), text);
    }
    assert_eq!(fs::read_to_string(folder.at("bad.csv")).expect("it"), "model,top1\nresnet20,80\n");
    call(&mut results(&[&folder.at("none.md")], &[]))
        .fails(1, &["cannot read the page", "none.md"]);
}

/// The pages of the repository are what its tables give. To write them again:
///
/// ```sh
/// dbb results README.md docs/RESULTS.md docs/blocks.md
/// ```
#[test]
fn the_pages_of_the_repository_are_made_from_its_tables() {
    let pages = ["README.md", "docs/RESULTS.md", "docs/blocks.md"];
    let pages = pages.map(|page| format!("{REPOSITORY}/{page}"));
    let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
    call(&mut results(&pages, &["--check"])).succeeds();
}

/// The page on comparisons lists every kind of part.
#[test]
fn the_kinds_of_parts_are_documented() {
    let page = fs::read_to_string(format!("{REPOSITORY}/docs/compare.md")).expect("the page");
    for (kind, meaning) in Part::kinds() {
        let row = format!("| `{kind}` | {meaning} |");
        assert!(page.contains(&row), "docs/compare.md lacks {row}");
    }
}
