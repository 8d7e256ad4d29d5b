//! `docs/commands.md` says what the program's own help says. To write it again:
//!
//! ```sh
//! UPDATE_DOCS=1 cargo test --release --workspace --test cli commands_page
//! ```

use std::{env, fs};

use clap::{Arg, Command};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");

const HEAD: &str = "\
# Commands

Generated from the program's own help (`dbb COMMAND --help`). Results go to standard output, with `--json` as
one JSON object; logs and progress go to standard error. [Exit codes](runs.md#exit-codes) are the same for all
commands.
";

#[test]
fn the_page_of_commands_is_the_help() {
    let mut program = dbb_cli::command();
    program.build();
    let mut page = HEAD.to_string();
    let overview = commands(&program).map(|command| {
        let name = command.get_name();
        format!("| [`{name}`](#dbb-{name}) | {} |\n", cell(&about(command)[0]))
    });
    page += &format!("\n| command | what it does |\n|---|---|\n{}", overview.collect::<String>());
    commands(&program).for_each(|command| describe(command, &mut page));
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, &page).expect("the page can be written");
    }
    let found = fs::read_to_string(PAGE).expect("docs/commands.md can be read");
    let differing = found.lines().zip(page.lines()).find(|(found, made)| found != made);
    assert!(
        found == page,
        "docs/commands.md is not what the help says ({differing:?}); write it again with \
         UPDATE_DOCS=1 cargo test --release --workspace --test cli commands_page"
    );
}

fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

/// The description of a command, by paragraph.
fn about(command: &Command) -> Vec<String> {
    let text = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    text.unwrap_or_default().split("\n\n").map(str::to_string).collect()
}

/// The section of a command, and those of its subcommands.
fn describe(command: &Command, page: &mut String) {
    *page += &format!("\n## {}\n", command.get_bin_name().unwrap_or(command.get_name()));
    for paragraph in about(command) {
        match paragraph.strip_prefix("Example: ") {
            Some(example) => *page += &format!("\n```sh\n{example}\n```\n"),
            None => *page += &format!("\n{}\n", paragraph.replace('<', "\\<")),
        }
    }
    let usage = command.clone().render_usage().to_string();
    *page += &format!("\n```text\n{usage}\n```\n");
    let shown = |arg: &&Arg| !matches!(arg.get_id().as_str(), "help" | "version");
    let mut rows = command.get_arguments().filter(shown).map(row).peekable();
    if rows.peek().is_some() {
        let rows = rows.collect::<String>();
        *page += &format!("\n| argument | default | meaning |\n|---|---|---|\n{rows}");
    }
    commands(command).for_each(|command| describe(command, page));
}

/// An argument, its default, and what it does.
fn row(arg: &Arg) -> String {
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    let takes_value = arg.get_action().takes_values();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
    let mut text = cell(&help.unwrap_or_default());
    if takes_value && !arg.is_hide_possible_values_set() {
        text += &values(arg);
    }
    let default = if takes_value { defaults.join(", ") } else { String::new() };
    let aliases = arg.get_visible_aliases().unwrap_or_default().into_iter();
    let aliases: String = aliases.map(|alias| format!(", `--{alias}`")).collect();
    format!("| `{arg}`{aliases} | {default} | {text} |\n")
}

/// The values an argument can have: in a row, or with their meaning in a line each.
fn values(arg: &Arg) -> String {
    let values = arg.get_possible_values();
    let described = values.iter().any(|value| value.get_help().is_some());
    let each = values.iter().map(|value| match value.get_help() {
        Some(help) => format!("`{}`: {}", value.get_name(), cell(&help.to_string())),
        None => format!("`{}`", value.get_name()),
    });
    let each: Vec<String> = each.collect();
    match (each.is_empty(), described) {
        (true, _) => String::new(),
        (false, true) => format!("<br>{}", each.join("<br>")),
        (false, false) => format!("; one of {}", each.join(", ")),
    }
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|").replace('<', "\\<")
}
