//! Errors as people read them: one line, every cause once.

use anyhow::Error;

/// An error and its causes on one line. Libraries repeat a cause in the text of what it caused: what
/// was said already is left out.
pub fn one_line(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("No such file").context("read kubeconfig: No such file").context("read /k");
        assert_eq!(one_line(&error), "read /k: read kubeconfig: No such file");
        assert_eq!(one_line(&anyhow!("inner").context("outer")), "outer: inner");
        assert_eq!(one_line(&anyhow!("a\n  b\nc")), "a b c");
    }
}
