//! `docs/commands.md` is what the program says of itself, and `docs/troubleshooting.md` knows every error code.

use std::path::{Path, PathBuf};

use althing::api::ErrorCode;
use serde_json::Value;

use crate::harness::{NODE, TestResult, run, text};

const BEGINNING: &str = "\
# Commands

What `help` says at the prompt and `node --help` on the command line, in one place. This file is written by a test:
`UPDATE_TRANSCRIPTS=1 cargo nextest run --test node reference` renews it. How the commands look in use stands in
[tests/transcripts](../tests/transcripts).

A line is a command, with or without `/` in front of it. Inside `chat PEER` only a line with `/` is one.
";

#[tokio::test]
async fn the_reference_of_commands_is_what_the_program_says() -> TestResult {
    let file = docs("commands.md");
    let overview = said("help").await?;
    let mut page = BEGINNING.to_owned();
    block(&mut page, "## Overview", &overview);
    for line in overview.lines().take_while(|line| !line.is_empty()) {
        match line.strip_prefix("  ") {
            None => page.push_str(&format!("\n## {line}\n")),
            // Deeper lines go on with the one before.
            Some(form) if form.starts_with(' ') => {}
            Some(form) => {
                let name = form.split_whitespace().next().unwrap_or_default();
                block(&mut page, &format!("### {name}"), &said(&format!("help {name}")).await?);
            }
        }
    }
    block(&mut page, "## Other names", &said("help compat").await?);
    // The width of somebody's terminal is no part of the page.
    let output = std::process::Command::new(NODE).arg("--help").env_remove("COLUMNS").output()?;
    block(&mut page, "## The command line", &String::from_utf8(output.stdout)?);
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| !value.is_empty()) {
        std::fs::write(file, page)?;
        return Ok(());
    }
    let written = std::fs::read_to_string(file)?;
    let differ = written.lines().zip(page.lines()).find(|(written, said)| written != said);
    assert_eq!(differ, None, "docs/commands.md is out of date; UPDATE_TRANSCRIPTS=1 renews it");
    assert_eq!(written.lines().count(), page.lines().count(), "docs/commands.md is out of date");
    Ok(())
}

#[test]
fn every_error_code_is_explained_with_its_exit_status() -> TestResult {
    let page = std::fs::read_to_string(docs("troubleshooting.md"))?;
    for code in [
        ErrorCode::General,
        ErrorCode::Usage,
        ErrorCode::UnknownCommand,
        ErrorCode::NoSuchPeer,
        ErrorCode::AmbiguousPeer,
        ErrorCode::Unreachable,
        ErrorCode::NotRunning,
        ErrorCode::OnlyQueued,
        ErrorCode::Timeout,
        ErrorCode::ConditionFalse,
        ErrorCode::Integrity,
        ErrorCode::Refused,
        ErrorCode::DataDirInUse,
        ErrorCode::Storage,
        ErrorCode::Stopping,
    ] {
        let name = serde_json::to_value(code)?;
        let row = format!("| `{}` | {} |", name.as_str().unwrap_or_default(), code.exit_status());
        assert!(page.contains(&row), "docs/troubleshooting.md has no row that begins with {row}");
    }
    Ok(())
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// The text that a command answers with.
async fn said(command: &str) -> Result<String, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let output = run(&["--json", "--mdns", "off", "--host", "127.0.0.1", "--data-dir", &data, "-e", command]).await?;
    for line in String::from_utf8(output.stdout)?.lines() {
        let reply: Value = serde_json::from_str(line)?;
        if reply["type"] == "reply" && reply["ok"] == true {
            return Ok(text(&reply["data"], "text").to_owned());
        }
    }
    Err(format!("`{command}` has no answer").into())
}

fn block(page: &mut String, title: &str, text: &str) {
    page.push_str(&format!("\n{title}\n\n```text\n"));
    for line in text.trim_end().lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
}
