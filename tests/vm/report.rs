//! What the machine said: sections of text by name, each with an exit code.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const MARK: &str = "=== ";
const ENDED: &str = " ended ";

/// Everything the scenario told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    sections: BTreeMap<String, Section>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Section {
    output: String,
    /// `None` while the machine was still at it.
    code: Option<i32>,
}

impl Report {
    /// Reads the serial port's text; lines outside of sections mean nothing.
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let mut open: Option<String> = None;
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            match (line.strip_prefix(MARK), &open) {
                (Some(rest), Some(name)) if rest.starts_with(&format!("{name}{ENDED}")) => {
                    if let Some(section) = report.sections.get_mut(name) {
                        section.code = rest.rsplit(' ').next().and_then(|code| code.parse().ok());
                    }
                    open = None;
                }
                (Some(name), None) => {
                    report.sections.insert(name.to_owned(), Section::default());
                    open = Some(name.to_owned());
                }
                (_, Some(name)) => {
                    if let Some(section) = report.sections.get_mut(name) {
                        section.output.push_str(line);
                        section.output.push('\n');
                    }
                }
                (None, None) => {}
            }
        }
        report
    }

    /// The output of a section that succeeded.
    pub fn output(&self, name: &str) -> Result<&str> {
        let section = self.sections.get(name).with_context(|| format!("the machine did not come to {name:?}"))?;
        let code = section.code.with_context(|| format!("{name} did not end:\n{}", section.output))?;
        ensure!(code == 0, "{name} ended with {code}:\n{}", section.output.trim());
        Ok(section.output.trim())
    }

    /// The lines of a section that succeeded.
    pub fn lines(&self, name: &str) -> Result<Vec<&str>> {
        Ok(self.output(name)?.lines().collect())
    }

    /// A section that is one JSON object.
    pub fn json(&self, name: &str) -> Result<Value> {
        let output = self.output(name)?;
        serde_json::from_str(output).with_context(|| format!("{name} is no JSON: {output}"))
    }

    /// The exit code of a section that ended.
    pub fn code(&self, name: &str) -> Option<i32> {
        self.sections.get(name)?.code
    }

    /// Every section that did not succeed, for whoever has to find out why.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let failed = self.sections.iter().filter(|(_, section)| section.code != Some(0));
        failed.map(|(name, section)| format!("--- {name}: {:?}\n{}", section.code, section.output.trim()))
    }
}

/// The parser's own case; the harness runs it like the others.
pub fn sections_are_told_apart() -> Result<()> {
    let report = Report::parse(
        "noise\r\n=== a\r\n1\r\n=== b\r\n\r\n=== a ended 0\r\nnoise\n=== c\nx\n\n=== c ended 7\n=== d\nz",
    );
    ensure!(report.output("a")? == "1\n=== b", "{report:?}");
    ensure!(report.output("b").is_err() && report.code("c") == Some(7), "{report:?}");
    let error = report.output("c").map_or_else(|error| error.to_string(), str::to_owned);
    ensure!(error.contains("ended with 7") && error.contains('x'), "{error}");
    ensure!(report.output("d").is_err() && report.failures().count() == 2, "{report:?}");
    Ok(())
}
