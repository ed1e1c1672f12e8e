//! Progress of long steps: a spinner on a terminal, one line per finished step
//! elsewhere. Everything goes to standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step under way. Dropping it unfinished leaves a failure mark.
#[derive(Debug)]
pub struct Step {
    text: String,
    started: Instant,
    bar: Option<ProgressBar>,
    finished: bool,
}

/// Starts a step and shows its name.
pub fn step(text: impl Into<String>) -> Step {
    let text = text.into();
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner().with_message(text.clone());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    });
    Step { text, started: Instant::now(), bar, finished: false }
}

impl Step {
    /// Marks the step as done and shows how long it took.
    pub fn done(mut self) {
        self.finish("ok");
    }

    fn finish(&mut self, mark: &str) {
        self.finished = true;
        let line = format!("{mark:>4}  {} ({:.1} s)", self.text, self.started.elapsed().as_secs_f64());
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        eprintln!("{line}");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.finish("FAIL");
        }
    }
}
