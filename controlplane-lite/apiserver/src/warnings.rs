//! Warnings of the request at hand: collected where something is accepted that does not do what it says, and sent with
//! the answer, whatever that is. Bounded as upstream bounds them.

use std::cell::RefCell;
use std::future::Future;

/// Characters of all warnings of an answer.
const ALL: usize = 4 * 1024;

tokio::task_local! {
    static COLLECTED: RefCell<Vec<String>>;
}

/// Adds a warning to the answer of the request at hand, once.
pub fn add(text: impl Into<String>) {
    let text = text.into();
    // Outside of a request (a start-up's own writes) nobody reads them.
    let _ = COLLECTED.try_with(|collected| {
        let mut collected = collected.borrow_mut();
        let length = |text: &String| text.chars().count();
        let room = collected.iter().map(length).sum::<usize>() + length(&text) <= ALL;
        if room && !collected.contains(&text) {
            collected.push(text);
        }
    });
}

/// Runs the work of a request; what it answers, and its warnings.
pub async fn collect<F: Future>(work: F) -> (F::Output, Vec<String>) {
    COLLECTED
        .scope(RefCell::default(), async {
            let output = work.await;
            (output, COLLECTED.with(RefCell::take))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_comes_once_and_only_so_many() {
        add("nobody hears this");
        let ((), collected) = collect(async {
            for text in ["a", "b", "a"] {
                add(text);
            }
            tokio::task::yield_now().await;
            for n in 0..10_000 {
                add(format!("{n} {}", "x".repeat(100)));
            }
        })
        .await;
        assert_eq!(collected[..2], ["a", "b"]);
        assert!(collected.iter().map(String::len).sum::<usize>() <= ALL);
    }
}
